//! What a server serves. Implemented by generated code.

use std::future::Future;
use std::pin::Pin;

use crate::message::{RawRequest, RawResponse};
use crate::method::Method;
use crate::status::Status;

/// A call being handled. Dropped when the caller cancels or the deadline passes.
pub type HandlerFuture = Pin<Box<dyn Future<Output = Result<RawResponse, Status>> + Send>>;

/// A service as the server sees it.
pub trait Service: Send + Sync + 'static {
    fn methods(&self) -> &'static [Method];
    /// Handles a call of `self.methods()[index]`.
    fn call(&self, index: usize, request: RawRequest) -> HandlerFuture;
}
