//! `postern check`: every problem of a configuration, found as a start or a reload finds it.

mod manifests;

use std::path::PathBuf;
use std::process::ExitCode;

use postern_core::config::Config;
use postern_core::config::Problem;
use postern_kube::Settings;
use serde_json::Value;
use serde_json::json;

use self::manifests::is_manifest;
use super::Format;
use super::complain_of;
use super::print;
use crate::check::Checker;
use crate::view;
use crate::view::Secrets;

/// Check configuration files and manifests without running them
///
/// Reads each FILE as `postern run --config FILE` would, with the files in the folder routes.d
/// beside it and everything they refer to: certificates, keys, plugins. Prints every problem with
/// its place and what to do about it, all of them in one go.
///
/// A folder, and a file that ends in .yaml, .yml or .json, holds manifests of Kubernetes. All of
/// them together are read as one cluster, as `postern run --kubernetes` would, with the section
/// \[kubernetes] of the first configuration file that has one. What they name and do not hold is a
/// warning.
///
/// The exit code is 0 if all files can be run, even with warnings, and 1 if one cannot.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Configuration files, each on its own; manifests, all together
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Print the configuration that is in effect, with every default filled in
    #[arg(long)]
    print: bool,
    /// How to print
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

pub(super) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let checker = Checker::new()?;
    let mut all_good = true;
    let mut results: Vec<Value> = Vec::new();
    let (of_cluster, files): (Vec<_>, Vec<_>) =
        args.files.iter().partition(|file| is_manifest(file));
    let mut settings = Settings::default();
    for file in files {
        let checked = checker.check(file);
        let config = checked.loaded.as_ref().map(|loaded| &loaded.config);
        if let Some(spec) = config.and_then(|config| config.kubernetes.clone())
            && settings == Settings::default()
        {
            settings.spec = spec;
        }
        all_good &= config.is_some();
        if args.format == Format::Json {
            let shown = config.filter(|_| args.print);
            let problems = checked.problems.iter();
            results.push(json!({
                "file": file.to_string_lossy(),
                "ok": config.is_some(),
                "problems": problems.map(view::problem).collect::<Vec<_>>(),
                "config": shown.map(|config| view::config(config, Secrets::Shown)),
            }));
            continue;
        }
        complain_of(&checked.problems);
        match config {
            Some(config) if args.print => {
                let text = view::toml::render(&view::config(config, Secrets::Shown));
                print(format_args!("{}", text.trim_end()));
            }
            Some(config) => print(format_args!(
                "{}: good, {}",
                file.display(),
                summary(config)
            )),
            None => {}
        }
    }
    if !of_cluster.is_empty() {
        let checked = manifests::check(&of_cluster, &settings);
        let is_good = !checked.problems.iter().any(Problem::is_error);
        all_good &= is_good;
        if args.format == Format::Json {
            let problems = checked.problems.iter();
            results.push(json!({
                "file": "manifests",
                "ok": is_good,
                "problems": problems.map(view::problem).collect::<Vec<_>>(),
                "config": args.print.then(|| view::config(&checked.config, Secrets::Shown)),
            }));
        } else {
            complain_of(&checked.problems);
            if args.print {
                let text = view::toml::render(&view::config(&checked.config, Secrets::Shown));
                print(format_args!("{}", text.trim_end()));
            } else {
                let verdict = if is_good { "good" } else { "not good" };
                print(format_args!("manifests: {verdict}, {}", checked.summary));
            }
        }
    }
    if args.format == Format::Json {
        print(format_args!("{:#}", json!({ "files": results })));
    }
    Ok(if all_good {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn summary(config: &Config) -> String {
    let counts = [
        (config.listeners.len(), "listener"),
        (config.certificates.len(), "certificate"),
        (config.upstreams.len(), "upstream"),
        (config.policies.len(), "policy or plugin"),
        (config.routes.len(), "route"),
    ];
    let counts = counts.into_iter().filter(|(count, _)| *count > 0);
    let texts: Vec<String> = counts
        .map(|(count, what)| match (count, what) {
            (1, what) => format!("1 {what}"),
            (count, "policy or plugin") => format!("{count} policies and plugins"),
            (count, what) => format!("{count} {what}s"),
        })
        .collect();
    texts.join(", ")
}
