//! Generates frame services and gRPC services from the definitions in `proto`.

fn main() -> Result<(), kuafu_build::Error> {
    kuafu_build::compile(&["proto/fuxi/v1/fuxi.proto"], &["proto"])
}
