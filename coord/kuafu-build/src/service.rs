//! The service generator handed to prost-build: tonic's code and ours for each service.
//!
//! Ours is written as text; prost-build parses and formats the whole file afterwards, so a mistake here fails the
//! build of the crate that uses it, never later.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::rc::Rc;

use prost_build::{Method, Service};
use prost_types::FileDescriptorSet;
use prost_types::method_options::IdempotencyLevel;

use crate::Error;
use crate::names::{method_id, package_file_stem, snake};

/// tonic's code, gathered per package until the package ends: all of it goes into one submodule.
pub(crate) type Gathered = BTreeMap<String, String>;

pub(crate) struct Generator {
    tonic: Box<dyn prost_build::ServiceGenerator>,
    gathered: Rc<RefCell<Gathered>>,
}

impl Generator {
    pub(crate) fn new(gathered: Rc<RefCell<Gathered>>) -> Self {
        let tonic = tonic_prost_build::configure().proto_path("super::super").service_generator();
        Self { tonic, gathered }
    }
}

impl prost_build::ServiceGenerator for Generator {
    fn generate(&mut self, service: Service, buf: &mut String) {
        buf.push_str(&frame_code(&service));
        let mut gathered = self.gathered.borrow_mut();
        let out = gathered.entry(service.package.clone()).or_default();
        out.push_str(&adapter_impl(&service));
        self.tonic.generate(service, out);
    }

    fn finalize_package(&mut self, package: &str, buf: &mut String) {
        let code = self.gathered.borrow_mut().remove(package).unwrap_or_default();
        let file = format!("/{}.descriptors.bin", package_file_stem(package));
        let _ = write!(
            buf,
            r#"
            /// The definitions this module was made from, for gRPC reflection.
            pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "{file}"));
            /// tonic's servers and clients of the same services.
            #[allow(clippy::all, clippy::pedantic, unreachable_pub, missing_debug_implementations)]
            pub mod grpc {{ {code} }}
            "#
        );
    }
}

/// Packages of `set` that define services.
pub(crate) fn packages(set: &FileDescriptorSet) -> BTreeSet<String> {
    set.file.iter().filter(|file| !file.service.is_empty()).map(|file| file.package().to_owned()).collect()
}

/// Refuses what frames cannot carry.
pub(crate) fn check(set: &FileDescriptorSet) -> Result<(), Error> {
    let mut ids = BTreeMap::new();
    for file in &set.file {
        for service in &file.service {
            let service_name = qualified(file.package(), service.name());
            for method in &service.method {
                let path = format!("{service_name}/{}", method.name());
                if method.client_streaming() || method.server_streaming() {
                    return Err(Error::Streaming { method: path });
                }
                let id = method_id(&service_name, method.name());
                if let Some(first) = ids.insert(id, path.clone()) {
                    return Err(Error::SameId { first, second: path, id });
                }
            }
        }
    }
    Ok(())
}

fn qualified(package: &str, service: &str) -> String {
    if package.is_empty() { service.to_owned() } else { format!("{package}.{service}") }
}

fn docs(lines: &[String], indent: &str) -> String {
    lines.iter().fold(String::new(), |mut out, line| {
        // `{:?}` quotes: a comment may hold anything.
        let _ = writeln!(out, "{indent}#[doc = {line:?}]");
        out
    })
}

fn frame_code(service: &Service) -> String {
    let name = &service.name;
    let full = qualified(&service.package, &service.proto_name);
    let table = format!("{}_METHODS", snake(name).to_uppercase());
    let count = service.methods.len();
    let docs = docs(&service.comments.leading, "");
    let (mut methods, mut trait_fns, mut arms, mut client_fns) =
        (String::new(), String::new(), String::new(), String::new());
    for (index, method) in service.methods.iter().enumerate() {
        let _ = writeln!(
            methods,
            "::kuafu::Method::new({full:?}, {:?}, {}),",
            method.proto_name,
            idempotency(method)
        );
        trait_fns.push_str(&trait_fn(method));
        let _ = writeln!(
            arms,
            "{index} => ::kuafu::codegen::handle(request, move |request| async move {{ inner.{}(request).await }}),",
            method.name
        );
        client_fns.push_str(&client_fn(method, index, &table));
    }
    format!(
        r#"
        /// The methods of `{full}`, in the order of the definition.
        pub static {table}: [::kuafu::Method; {count}] = [{methods}];

        {docs}
        pub trait {name}: Send + Sync + 'static {{
            {trait_fns}
        }}

        /// Serves a [`{name}`] by frames.
        #[derive(Debug)]
        pub struct {name}Server<S> {{ inner: ::std::sync::Arc<S> }}

        impl<S> {name}Server<S> {{
            #[must_use]
            pub fn new(inner: ::std::sync::Arc<S>) -> Self {{ Self {{ inner }} }}
        }}

        impl<S: {name}> ::kuafu::Service for {name}Server<S> {{
            fn methods(&self) -> &'static [::kuafu::Method] {{ &{table} }}
            fn call(&self, index: usize, request: ::kuafu::RawRequest) -> ::kuafu::HandlerFuture {{
                let inner = ::std::sync::Arc::clone(&self.inner);
                match index {{
                    {arms}
                    _ => ::kuafu::codegen::no_such_method(),
                }}
            }}
        }}

        /// Calls a [`{name}`] by frames.
        #[derive(Clone, Debug)]
        pub struct {name}Client {{ channel: ::kuafu::Channel }}

        impl {name}Client {{
            /// Calls one server, or a service by its name.
            #[must_use]
            pub fn new(channel: impl Into<::kuafu::Channel>) -> Self {{ Self {{ channel: channel.into() }} }}
            /// What the calls go through.
            #[must_use]
            pub fn channel(&self) -> &::kuafu::Channel {{ &self.channel }}
            {client_fns}
        }}

        /// Serves a [`{name}`] by gRPC, for what needs no payload.
        #[derive(Debug)]
        pub struct {name}Grpc<S> {{ inner: ::std::sync::Arc<S> }}

        impl<S: {name}> {name}Grpc<S> {{
            /// The tonic service; hand it to `kuafu::grpc::GrpcServer`.
            #[must_use]
            pub fn server(inner: ::std::sync::Arc<S>) -> grpc::{module}_server::{name}Server<Self> {{
                grpc::{module}_server::{name}Server::new(Self {{ inner }})
            }}
        }}
        "#,
        module = snake(name),
    )
}

fn idempotency(method: &Method) -> &'static str {
    match method.options.idempotency_level() {
        IdempotencyLevel::IdempotencyUnknown => "false",
        IdempotencyLevel::NoSideEffects | IdempotencyLevel::Idempotent => "true",
    }
}

fn trait_fn(method: &Method) -> String {
    let docs = docs(&method.comments.leading, "            ");
    format!(
        r"
            {docs}
            fn {}(&self, request: ::kuafu::Request<{}>)
                -> impl ::core::future::Future<Output = ::core::result::Result<::kuafu::Response<{}>, ::kuafu::Status>> + Send;
        ",
        method.name, method.input_type, method.output_type
    )
}

fn client_fn(method: &Method, index: usize, table: &str) -> String {
    let docs = docs(&method.comments.leading, "            ");
    let Method { name, input_type, output_type, .. } = method;
    let result = format!("::core::result::Result<::kuafu::Response<{output_type}>, ::kuafu::Status>");
    format!(
        r"
            {docs}
            pub async fn {name}(&self, message: impl ::core::borrow::Borrow<{input_type}>, options: &::kuafu::CallOptions) -> {result} {{
                self.channel.call(&{table}[{index}], message.borrow(), ::kuafu::Bytes::new(), options).await
            }}

            /// The same with raw bytes behind the message.
            pub async fn {name}_with_payload(
                &self, message: impl ::core::borrow::Borrow<{input_type}>, payload: ::kuafu::Bytes,
                options: &::kuafu::CallOptions,
            ) -> {result} {{
                self.channel.call(&{table}[{index}], message.borrow(), payload, options).await
            }}
        "
    )
}

/// The gRPC trait of a service, answered by whoever implements the frame trait. Lands in the module `grpc`.
fn adapter_impl(service: &Service) -> String {
    let name = &service.name;
    let methods = service.methods.iter().fold(String::new(), |mut out, method| {
        let input = in_super(&method.input_type);
        let output = in_super(&method.output_type);
        let _ = write!(
            out,
            r"
                async fn {method}(&self, request: ::tonic::Request<{input}>)
                    -> ::core::result::Result<::tonic::Response<{output}>, ::tonic::Status> {{
                    let request = ::kuafu::codegen::from_grpc(request);
                    ::kuafu::codegen::to_grpc(super::{name}::{method}(&*self.inner, request).await)
                }}
            ",
            method = method.name
        );
        out
    });
    format!(
        r"
        #[::tonic::async_trait]
        impl<S: super::{name}> {module}_server::{name} for super::{name}Grpc<S> {{ {methods} }}
        ",
        module = snake(name),
    )
}

/// A type named as the package's module sees it, named as its submodule sees it.
fn in_super(path: &str) -> String {
    if path.starts_with("::") || path == "()" { path.to_owned() } else { format!("super::{path}") }
}
