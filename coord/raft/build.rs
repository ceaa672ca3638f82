//! Generates the peer service from its .proto.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    kuafu_build::compile(&["proto/raft/v1/raft.proto"], &["proto"])?;
    Ok(())
}
