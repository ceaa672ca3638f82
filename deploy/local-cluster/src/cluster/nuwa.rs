//! Members of Nuwa, and places in the network for their clients.

use std::ffi::OsString;
use std::net::IpAddr;

use super::{Cluster, Role};
use crate::error::Error;
use crate::network::Site;

impl Cluster {
    pub(super) fn add_nuwa(&mut self, n: u32) -> Result<(), Error> {
        let role = Role::Nuwa(n);
        let data = self.data(role)?;
        let arguments: Vec<OsString> = vec![
            "--id".into(),
            n.to_string().into(),
            "--data".into(),
            data.into(),
            "--cluster".into(),
            self.description().into(),
        ];
        self.add(role, "nuwa-server", arguments)
    }

    /// One more place in the network, for clients that are threads of this process. Only with
    /// [`Options::network`](super::Options::network).
    pub fn add_site(&mut self) -> Result<Site, Error> {
        let network = self.network.as_mut().ok_or_else(|| Error::NoMember("network".to_owned()))?;
        let address = network.connect()?;
        network.site(address)
    }

    /// Loses all between a server and another place in the network, or no more; both reach everybody else. For one pair at a
    /// time. As [`Self::cut`] otherwise.
    pub fn set_apart(&mut self, role: Role, other: IpAddr, apart: bool) -> Result<(), Error> {
        let address = self.ip_of(role)?;
        let network = self.network.as_ref().ok_or_else(|| Error::NoMember("network".to_owned()))?;
        network.set_apart([address, other], apart)
    }

    /// A server's address in the network.
    pub fn ip_of(&self, role: Role) -> Result<IpAddr, Error> {
        Ok(self.address(role)?.ip())
    }
}
