//! TCP: no delay; buffers are left to the kernel, which grows them by itself (4 MiB ones gained nothing when measured).

use std::io;
use std::net::SocketAddr;

use tokio::net::{TcpListener, TcpStream};

pub(crate) async fn connect(host_port: &str) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(host_port).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

pub(crate) async fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    TcpListener::bind(address).await
}

pub(crate) async fn accept(listener: &TcpListener) -> io::Result<TcpStream> {
    let (stream, _) = listener.accept().await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}
