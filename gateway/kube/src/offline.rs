//! Manifests looked at without a cluster: what one would say about them, with file and line.
//!
//! All files together are one cluster. What they name and do not hold may be in the real one, so
//! it is a warning here.

use std::collections::HashMap;

use postern_core::config::Problem;
use postern_core::config::problem::ConfigText;
use postern_core::config::problem::Lines;
use postern_core::config::problem::Origin;
use serde_json::Value;

use crate::cluster::Cluster;
use crate::manifest::Manifest;
use crate::manifest::load;
use crate::object::Kind;
use crate::object::ObjectProblem;
use crate::object::ObjectRef;
use crate::read::At;
use crate::record::object_name;
use crate::translate::Settings;
use crate::translate::Translation;
use crate::translate::translate;

/// What was found out about manifests.
pub struct Checked {
    pub translation: Translation,
    /// In the order of files and lines.
    pub problems: Vec<Problem>,
    /// Objects that were read.
    pub objects: usize,
    /// Ingresses that are left to other controllers.
    pub neighbors: usize,
}

/// Reads manifests and translates them.
pub fn check(files: &[ConfigText], settings: &Settings) -> Checked {
    let settings = Settings {
        is_offline: true,
        ..settings.clone()
    };
    let mut reading = Reading::default();
    let lines: Vec<Lines<'_>> = files.iter().map(Lines::new).collect();
    for (index, (file, lines)) in files.iter().zip(&lines).enumerate() {
        let (manifests, errors) = load(&file.text);
        let errors = errors
            .into_iter()
            .map(|error| Problem::error(lines.origin(error.place), error.message));
        reading.problems.extend(errors);
        for manifest in manifests {
            reading.take(index, lines, manifest);
        }
    }
    let translation = translate(&reading.cluster, &settings);
    let mut problems = reading.problems;
    for problem in &translation.problems {
        let place = reading.places.get(&problem.object);
        let origin = match place {
            Some((file, manifest)) => lines[*file].origin(manifest.place(&problem.field)),
            None => Origin::file("manifests".as_ref()),
        };
        problems.push(of_object(problem, origin));
    }
    problems.sort_by(|a, b| (&a.origin, &a.message).cmp(&(&b.origin, &b.message)));
    let served = translation.statuses.iter();
    let served = served.filter(|status| status.object.kind == Kind::Ingress);
    Checked {
        objects: reading.places.len(),
        neighbors: reading
            .cluster
            .ingresses
            .len()
            .saturating_sub(served.count()),
        translation,
        problems,
    }
}

fn of_object(problem: &ObjectProblem, origin: Origin) -> Problem {
    let object = &problem.object;
    let message = match problem.field.as_str() {
        "" => format!("{object}: {}", problem.message),
        field => format!("{object}: {field}: {}", problem.message),
    };
    let found = match problem.is_error() {
        true => Problem::error(origin, message),
        false => Problem::warning(origin, message),
    };
    match &problem.help {
        Some(help) => found.with_help(help.as_str()),
        None => found,
    }
}

#[derive(Default)]
struct Reading {
    cluster: Cluster,
    places: HashMap<ObjectRef, (usize, Manifest)>,
    problems: Vec<Problem>,
}

impl Reading {
    fn take(&mut self, file: usize, lines: &Lines<'_>, manifest: Manifest) {
        let text = |key: &str| manifest.value.get(key).and_then(Value::as_str);
        let (Some(version), Some(kind)) = (text("apiVersion"), text("kind")) else {
            // A values file, a kustomization: there is more in folders than manifests.
            return;
        };
        let kind = match Kind::parse(version, kind) {
            Some(kind) => kind,
            None if kind == Kind::Ingress.as_str() => {
                let origin = lines.origin(manifest.place("apiVersion"));
                let message = format!("Ingress: apiVersion: '{version}' is not served any more");
                let help = "write apiVersion: networking.k8s.io/v1";
                self.problems
                    .push(Problem::error(origin, message).with_help(help));
                Kind::Ingress
            }
            None => return,
        };
        let Some(name) = object_name(kind, &At::root(&manifest.value)) else {
            let origin = lines.origin(manifest.place("metadata"));
            let message = format!("{kind}: metadata.name: it is missing, or is no name");
            self.problems.push(Problem::error(origin, message));
            return;
        };
        let object = ObjectRef { kind, name };
        if self.places.contains_key(&object) {
            let origin = lines.origin(manifest.place("metadata"));
            let message = format!("{object}: it is there twice; the last one counts");
            self.problems.push(Problem::warning(origin, message));
        }
        self.cluster.apply(kind, &manifest.value);
        self.places.insert(object, (file, manifest));
    }
}

#[cfg(test)]
mod tests;
