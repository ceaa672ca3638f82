//! Generates the messages of the tree and of the services.

fn main() -> Result<(), kuafu_build::Error> {
    kuafu_build::compile_messages(&["proto/nuwa/v1/nuwa.proto"], &["proto"])
}
