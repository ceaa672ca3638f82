//! The members' talk: openraft's network on Kuafu frames ([`client`]) and what answers it ([`service`]), snapshots in
//! pieces ([`receive`]).

pub(crate) mod client;
pub(crate) mod convert;
pub(crate) mod given_up;
pub(crate) mod receive;
pub(crate) mod service;
pub(crate) mod thrift;
