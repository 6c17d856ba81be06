//! Loads a component and shows it one request: `cargo run -p postern-wasm --example call --
//! COMPONENT CONFIG PATH`.

#![allow(clippy::print_stdout, reason = "its output is what an example is for")]

use std::error::Error;

use postern_core::config::plugin::PluginLimits;
use postern_core::name::PolicyName;
use postern_core::path::EncodedSlash;
use postern_core::path::RequestPath;
use postern_wasm::Component;
use postern_wasm::Exchange;
use postern_wasm::Plugin;
use postern_wasm::PluginEngine;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [file, config, path] = &arguments[..] else {
        return Err("usage: call COMPONENT CONFIG PATH".into());
    };
    let engine = PluginEngine::new(None)?;
    let component = Component::load(&engine, &std::fs::read(file)?)?;
    println!(
        "{} bytes, compiled in {:?}, imports {:?}",
        component.size(),
        component.compile_time(),
        component.imports()
    );
    let name = PolicyName::parse("example")?;
    let limits = PluginLimits::default();
    let plugin = Plugin::configure(component, name, config.clone(), limits).await?;
    let worker = plugin.worker();
    let mut exchange = Exchange::default();
    exchange.request.path = RequestPath::from_text(path, EncodedSlash::Reject)?;
    let action = worker.on_request(&mut exchange).await?;
    println!("{action:?}");
    println!("{}", exchange.request.path.as_str());
    println!("{:?}", exchange.request.headers);
    Ok(())
}
