//! A method of a service, and its id on the wire.

/// A method of a service. Generated code holds these in statics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Method {
    /// `package.Service`
    pub service: &'static str,
    pub name: &'static str,
    /// On the wire: FNV-1a (32 bits) of `package.Service/Method`. Renaming a method makes it another one.
    pub id: u32,
    /// Executing it twice does no more than once: a call that may have been executed may be sent again.
    pub idempotent: bool,
}

impl Method {
    #[must_use]
    pub const fn new(service: &'static str, name: &'static str, idempotent: bool) -> Self {
        Self { service, name, id: Self::id_of(service, name), idempotent }
    }

    /// The id of a method that was named by somebody else.
    #[must_use]
    pub const fn id_of(service: &str, name: &str) -> u32 {
        fnv1a(fnv1a(fnv1a(0x811c_9dc5, service.as_bytes()), b"/"), name.as_bytes())
    }
}

const fn fnv1a(mut hash: u32, bytes: &[u8]) -> u32 {
    let mut i = 0;
    while i < bytes.len() {
        hash = (hash ^ bytes[i] as u32).wrapping_mul(0x0100_0193);
        i += 1;
    }
    hash
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn id_is_fnv1a_of_the_full_name() {
        // "foobar" is FNV's published test vector.
        assert_eq!(fnv1a(0x811c_9dc5, b"foobar"), 0xbf9c_f968);
        assert_eq!(Method::new("a.B", "C", false).id, fnv1a(0x811c_9dc5, b"a.B/C"));
    }
}
