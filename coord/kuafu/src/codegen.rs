//! Called by generated code only.

use std::future::Future;
use std::time::{Duration, Instant};

use bytes::Bytes;
use prost::Message;

use crate::auth::{PeerInfo, PeerTransport, Principal};
use crate::message::{PayloadCheck, RawRequest, RawResponse, Request, Response};
use crate::service::HandlerFuture;
use crate::status::{Code, Status};

/// A gRPC call without `grpc-timeout` gets this long.
const GRPC_TIMEOUT_DEFAULT: Duration = Duration::from_secs(60);

/// Decodes, handles, encodes.
pub fn handle<Req, Rep, F, Fut>(request: RawRequest, handler: F) -> HandlerFuture
where
    Req: Message + Default,
    Rep: Message,
    F: FnOnce(Request<Req>) -> Fut + Send + 'static,
    Fut: Future<Output = Result<Response<Rep>, Status>> + Send + 'static,
{
    let RawRequest { message, payload, payload_check, deadline, peer, principal } = request;
    let message = match Req::decode(message) {
        Ok(message) => message,
        Err(error) => {
            let status = Status::invalid_argument(format!("decode the request: {error}"));
            return Box::pin(std::future::ready(Err(status)));
        }
    };
    let future = handler(Request { message, payload, payload_check, deadline, peer, principal });
    Box::pin(async move { future.await.map(encode) })
}

fn encode<Rep: Message>(response: Response<Rep>) -> RawResponse {
    let Response { message, payload, payload_check } = response;
    RawResponse { message: message.encode_to_vec().into(), payload, payload_check }
}

/// The method table and the dispatch of generated code disagree.
#[must_use]
pub fn no_such_method() -> HandlerFuture {
    Box::pin(std::future::ready(Err(Status::unimplemented("no such method"))))
}

/// A gRPC request as a frame handler sees it.
#[must_use]
pub fn from_grpc<T>(request: tonic::Request<T>) -> Request<T> {
    let timeout = request
        .metadata()
        .get("grpc-timeout")
        .and_then(|value| value.to_str().ok())
        .and_then(parse_grpc_timeout)
        .unwrap_or(GRPC_TIMEOUT_DEFAULT);
    let peer = PeerInfo::new(PeerTransport::Grpc(request.remote_addr()), 0);
    let principal = request.extensions().get::<Principal>().cloned();
    Request {
        message: request.into_inner(),
        payload: Bytes::new(),
        payload_check: PayloadCheck::Crc,
        deadline: Instant::now() + timeout,
        peer,
        principal,
    }
}

/// At most eight digits and a unit, as gRPC defines it.
fn parse_grpc_timeout(text: &str) -> Option<Duration> {
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.len() > 8 {
        return None;
    }
    let number: u64 = digits.parse().ok()?;
    Some(match unit {
        "H" => Duration::from_secs(number * 3600),
        "M" => Duration::from_secs(number * 60),
        "S" => Duration::from_secs(number),
        "m" => Duration::from_millis(number),
        "u" => Duration::from_micros(number),
        "n" => Duration::from_nanos(number),
        _ => return None,
    })
}

/// A frame handler's answer as gRPC carries it. A payload cannot travel: the answer becomes an error.
///
/// # Errors
/// The handler's status.
pub fn to_grpc<T>(result: Result<Response<T>, Status>) -> Result<tonic::Response<T>, tonic::Status> {
    match result {
        Ok(response) if response.payload.is_empty() => Ok(tonic::Response::new(response.message)),
        Ok(_) => Err(tonic::Status::unimplemented("the answer has a payload: call this method by frames")),
        Err(status) => Err(grpc_status(status)),
    }
}

pub(crate) fn grpc_status(status: Status) -> tonic::Status {
    let code = match status.code {
        Code::Ok => tonic::Code::Ok,
        Code::Cancelled => tonic::Code::Cancelled,
        Code::InvalidArgument => tonic::Code::InvalidArgument,
        Code::NotFound => tonic::Code::NotFound,
        Code::DeadlineExceeded => tonic::Code::DeadlineExceeded,
        Code::Unavailable | Code::NotLeader => tonic::Code::Unavailable,
        Code::Busy | Code::Full => tonic::Code::ResourceExhausted,
        Code::Stale | Code::NotCommitted => tonic::Code::FailedPrecondition,
        Code::PermissionDenied => tonic::Code::PermissionDenied,
        Code::DataLoss => tonic::Code::DataLoss,
        Code::Unimplemented => tonic::Code::Unimplemented,
        Code::Internal => tonic::Code::Internal,
    };
    tonic::Status::new(code, status.message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grpc_timeouts() {
        assert_eq!(parse_grpc_timeout("100m"), Some(Duration::from_millis(100)));
        assert_eq!(parse_grpc_timeout("99999999H"), Some(Duration::from_secs(99_999_999 * 3600)));
        for bad in ["", "m", "1", "1x", "123456789S", "-1S", "é"] {
            assert_eq!(parse_grpc_timeout(bad), None, "{bad}");
        }
    }

    #[test]
    fn payload_cannot_travel_by_grpc() {
        let answer = to_grpc(Ok(Response::with_payload((), Bytes::from_static(b"x"))));
        assert_eq!(answer.unwrap_err().code(), tonic::Code::Unimplemented);
    }
}
