//! Makes a component of a core module: `cargo run -p postern-wasm --example encode -- IN OUT`.

use std::error::Error;
use std::fs;

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args_os().skip(1);
    let (Some(from), Some(to), None) = (arguments.next(), arguments.next(), arguments.next())
    else {
        return Err("usage: encode IN OUT".into());
    };
    let component = postern_wasm::encode_component(&fs::read(from)?)?;
    fs::write(to, component)?;
    Ok(())
}
