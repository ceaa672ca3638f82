//! Generates frame services and gRPC services from the definitions in `proto`; the messages are in `master-model`.

fn main() -> Result<(), kuafu_build::Error> {
    kuafu_build::compile_services(&["proto/master/v1/master.proto"], &["proto"], "::master_model::proto")
}
