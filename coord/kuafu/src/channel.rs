//! What generated clients call through: a connection to one server, or whichever endpoints a name stands for.

use bytes::Bytes;
use prost::Message;

use crate::client::{Client, ClientConfig};
use crate::message::{CallOptions, Response};
use crate::method::Method;
use crate::name::Target;
use crate::named::{NamedClient, NamedConfig, Resolver, UnknownCluster};
use crate::status::Status;

/// One server, or a service by its name. Cheap to clone.
#[derive(Clone, Debug)]
pub enum Channel {
    One(Client),
    Named(NamedClient),
}

impl Channel {
    /// A channel to an address or a name. Must be called inside a tokio runtime, which drives the connections.
    ///
    /// # Errors
    /// [`UnknownCluster`]: the resolver does not know the name's cluster.
    pub fn to(
        target: &Target,
        transport: ClientConfig,
        resolver: &dyn Resolver,
    ) -> Result<Self, UnknownCluster> {
        Self::with(target, NamedConfig { transport, ..NamedConfig::default() }, resolver)
    }

    /// The same for a process that can say where it stands: of a name's endpoints those in [`NamedConfig::rack`] are preferred. An
    /// address is called wherever it is.
    ///
    /// # Errors
    /// As [`Channel::to`].
    pub fn with(
        target: &Target,
        config: NamedConfig,
        resolver: &dyn Resolver,
    ) -> Result<Self, UnknownCluster> {
        Ok(match target {
            Target::Address(address) => Self::One(Client::new(address.clone(), config.transport)),
            Target::Name(name) => {
                Self::Named(NamedClient::new(name.clone(), resolver.resolve(name)?, config))
            }
        })
    }

    /// See [`Client::call`] and [`NamedClient::call`].
    ///
    /// # Errors
    /// As theirs.
    pub async fn call<Req, Rep>(
        &self,
        method: &'static Method,
        message: &Req,
        payload: Bytes,
        options: &CallOptions,
    ) -> Result<Response<Rep>, Status>
    where
        Req: Message,
        Rep: Message + Default,
    {
        match self {
            Self::One(client) => client.call(method, message, payload, options).await,
            // Boxed: calls to one server are the hot ones, and their future stays as small as it is.
            Self::Named(named) => Box::pin(named.call(method, message, payload, options)).await,
        }
    }
}

impl From<Client> for Channel {
    fn from(client: Client) -> Self {
        Self::One(client)
    }
}

impl From<NamedClient> for Channel {
    fn from(named: NamedClient) -> Self {
        Self::Named(named)
    }
}
