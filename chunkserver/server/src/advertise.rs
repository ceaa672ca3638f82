//! Which address others are told.

use kuafu::Address;

/// The address to register: the one that was set, or the one listened on. Warns about one nobody can connect to.
pub(crate) fn address(set: Option<&Address>, listening: &Address) -> Address {
    if let Some(address) = set {
        return address.clone();
    }
    if let Address::Tcp(host_port) = listening
        && (host_port.starts_with("0.0.0.0:") || host_port.starts_with("[::]:"))
    {
        tracing::warn!(%listening, "others cannot connect to this address: name one with --advertise");
    }
    listening.clone()
}
