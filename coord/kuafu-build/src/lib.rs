//! Generates, from one `.proto`, what both transports of Kuafu need: prost messages, our frame trait, server and
//! client, tonic's gRPC server and client in a submodule `grpc`, and the adapter that serves the frame trait by gRPC.
//! Called from build scripts:
//!
//! ```no_run
//! fn main() -> Result<(), kuafu_build::Error> {
//!     kuafu_build::compile(&["proto/master/v1/master.proto"], &["proto"])
//! }
//! ```
//!
//! Invariants: no external program is run (protox parses the definitions); method ids of one compilation are
//! distinct; streaming methods are refused, since frames have no streams.

mod names;
mod service;

use std::cell::RefCell;
use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use prost::Message as _;

use crate::names::package_file_stem;
use crate::service::Generator;

/// Why code could not be generated.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("parse the definitions: {0}")]
    Parse(#[from] Box<protox::Error>),
    #[error("OUT_DIR is not set: this must run in a build script")]
    NoOutDir(#[source] env::VarError),
    #[error("write {path}")]
    Write {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("generate Rust code")]
    Generate(#[source] std::io::Error),
    #[error("{method}: frames have no streams; declare a unary method")]
    Streaming { method: String },
    #[error("{first} and {second} have the same method id {id:#010x}: rename one of them")]
    SameId { first: String, second: String, id: u32 },
}

/// Compiles `protos` (found in `includes`) into OUT_DIR. Include the result with `kuafu::include_proto!("package")`.
///
/// # Errors
/// See [`Error`]; each names the file or method.
pub fn compile(protos: &[&str], includes: &[&str]) -> Result<(), Error> {
    for include in includes {
        println!("cargo:rerun-if-changed={include}");
    }
    let out_dir = PathBuf::from(env::var("OUT_DIR").map_err(Error::NoOutDir)?);
    compile_into(protos, includes, &out_dir)
}

/// As [`compile`], messages only: for a crate that must not depend on a runtime. Include the result with
/// `include!(concat!(env!("OUT_DIR"), "/package.rs"))`; its crate needs prost and bytes, nothing of Kuafu.
///
/// # Errors
/// As [`compile`].
pub fn compile_messages(protos: &[&str], includes: &[&str]) -> Result<(), Error> {
    for include in includes {
        println!("cargo:rerun-if-changed={include}");
    }
    let out_dir = PathBuf::from(env::var("OUT_DIR").map_err(Error::NoOutDir)?);
    let set = protox::compile(protos, includes).map_err(Box::new)?;
    prost_build::Config::new().bytes(["."]).out_dir(out_dir).compile_fds(set).map_err(Error::Generate)
}

/// As [`compile`], services only: the messages are those that [`compile_messages`] made in the module `messages`, an
/// absolute path. Include the result as that of [`compile`].
///
/// # Errors
/// As [`compile`].
pub fn compile_services(protos: &[&str], includes: &[&str], messages: &str) -> Result<(), Error> {
    for include in includes {
        println!("cargo:rerun-if-changed={include}");
    }
    let out_dir = PathBuf::from(env::var("OUT_DIR").map_err(Error::NoOutDir)?);
    generate(protos, includes, &out_dir, Some(messages))
}

/// As [`compile`], into `out_dir`.
///
/// # Errors
/// As [`compile`].
pub fn compile_into(
    protos: &[impl AsRef<Path>],
    includes: &[impl AsRef<Path>],
    out_dir: &Path,
) -> Result<(), Error> {
    generate(protos, includes, out_dir, None)
}

fn generate(
    protos: &[impl AsRef<Path>],
    includes: &[impl AsRef<Path>],
    out_dir: &Path,
    messages: Option<&str>,
) -> Result<(), Error> {
    let set = protox::compile(protos, includes).map_err(Box::new)?;
    let mut config = prost_build::Config::new();
    for package in service::packages(&set) {
        if let Some(messages) = messages {
            config.extern_path(format!(".{package}"), messages);
        }
    }
    for package in service::packages(&set) {
        let path = out_dir.join(format!("{}.descriptors.bin", package_file_stem(&package)));
        fs::write(&path, set.encode_to_vec()).map_err(|source| Error::Write { path, source })?;
    }
    service::check(&set)?;
    let state = Rc::new(RefCell::default());
    config
        .bytes(["."])
        .out_dir(out_dir)
        .service_generator(Box::new(Generator::new(Rc::clone(&state))))
        .compile_fds(set)
        .map_err(Error::Generate)
}
