//! Names and ids derived from a definition. The method id is part of the wire format (`coord/kuafu/docs/wire.md`);
//! `kuafu::Method::new` computes the same one.

/// FNV-1a, 32 bits, of `package.Service/Method`.
pub(crate) fn method_id(service: &str, method: &str) -> u32 {
    let mut hash: u32 = 0x811c_9dc5;
    for byte in service.bytes().chain([b'/']).chain(method.bytes()) {
        hash = (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193);
    }
    hash
}

/// `MyService` to `my_service`.
pub(crate) fn snake(name: &str) -> String {
    let mut out = String::with_capacity(name.len() + 4);
    let mut previous_lower = false;
    for c in name.chars() {
        if c.is_ascii_uppercase() && previous_lower {
            out.push('_');
        }
        previous_lower = c.is_ascii_lowercase() || c.is_ascii_digit();
        out.push(c.to_ascii_lowercase());
    }
    out
}

/// The file a package's code lands in, without extension: as prost-build names it.
pub(crate) fn package_file_stem(package: &str) -> String {
    if package.is_empty() { "_".to_owned() } else { package.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn method_id_is_fnv1a() {
        // Reference values of FNV-1a: the id is on the wire and must never change.
        assert_eq!(method_id("foo", "bar"), fnv1a(b"foo/bar"));
        assert_eq!(fnv1a(b""), 0x811c_9dc5);
        assert_eq!(fnv1a(b"foobar"), 0xbf9c_f968);
    }

    fn fnv1a(bytes: &[u8]) -> u32 {
        bytes.iter().fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193))
    }

    #[test]
    fn snake_case() {
        assert_eq!(snake("Namespace"), "namespace");
        assert_eq!(snake("ChunkAdmin"), "chunk_admin");
        assert_eq!(snake("V1Api"), "v1_api");
    }
}
