//! Generates frame services and gRPC services; the messages are in `nuwa-model`.

fn main() -> Result<(), kuafu_build::Error> {
    kuafu_build::compile_services(
        &["../model/proto/nuwa/v1/nuwa.proto"],
        &["../model/proto"],
        "::nuwa_model::proto",
    )
}
