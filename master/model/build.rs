//! Generates the messages of the master's definition, without its services.

fn main() -> Result<(), kuafu_build::Error> {
    kuafu_build::compile_messages(&["../api/proto/master/v1/master.proto"], &["../api/proto"])
}
