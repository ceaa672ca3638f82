//! Generates messages, frame services and gRPC services from the definitions in `proto`.

fn main() -> Result<(), kuafu_build::Error> {
    kuafu_build::compile(&["proto/master/v1/master.proto"], &["proto"])
}
