//! `new`, `sdk` and `build`.

use std::path::Path;
use std::time::Duration;

use tokio::time::Instant;

use super::super::print;
use crate::plugin::build;
use crate::plugin::project::Language;
use crate::plugin::project::Project;
use crate::plugin::project::SDK_DIR;
use crate::plugin::template;

pub(super) fn new(language: Language, name: &str, dir: Option<&Path>) -> anyhow::Result<()> {
    let dir = dir.unwrap_or_else(|| Path::new(name));
    template::create(dir, language, name)?;
    print(format_args!(
        "{dir}: a policy in {language}, its cases in tests/, the SDK in {SDK_DIR}/\n\
         now: cd {dir} && postern plugin build && postern plugin test",
        dir = dir.display()
    ));
    Ok(())
}

pub(super) fn sdk(dir: &Path) -> anyhow::Result<()> {
    let project = Project::open(dir)?;
    let sdk = project.dir.join(SDK_DIR);
    template::write_sdk(&sdk, project.manifest.language)?;
    print(format_args!("{}: as of this version", sdk.display()));
    Ok(())
}

pub(super) fn build(dir: &Path) -> anyhow::Result<()> {
    let project = Project::open(dir)?;
    let started = Instant::now();
    let component = build::build(&project)?;
    let took: Duration = started.elapsed();
    let bytes = super::read(&component)?.len();
    print(format_args!(
        "{}: {bytes} bytes, in {:.1} s",
        component.display(),
        took.as_secs_f64()
    ));
    Ok(())
}
