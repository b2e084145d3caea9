//! The files with which others run seaprox: units of systemd, manifests of Kubernetes, and the scripts of the Debian package.

use crate::kit;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use kit::program::{output, shell};
use kit::seaprox::BINARY;
use kit::{Scratch, has};
use serde_json::Value;

fn top() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("a workspace").to_owned()
}

#[test]
fn the_units_are_valid_and_expose_little() {
    if !has("systemd-analyze") {
        return;
    }
    let scratch = Scratch::new();
    let unit = |file: &str, as_file: &str| {
        let text = fs::read_to_string(top().join("examples/systemd").join(file)).expect("a unit");
        // The units name the program where packages install it.
        scratch.write(as_file, text.replace("/usr/bin/seaprox", BINARY))
    };
    let one = unit("seaprox.service", "seaprox.service");
    let other = unit("seaprox@.service", "seaprox@.service");
    let instance = unit("seaprox@.service", "seaprox@office.service");
    let socket = unit("seaprox.socket", "seaprox.socket");
    let verified = shell("systemd-analyze verify --man=no \"$0\" \"$@\" 2>&1", &[&one, &instance, &socket]);
    assert_eq!((verified.code, &*String::from_utf8_lossy(&verified.out)), (Some(0), ""));
    for unit in [&one, &other] {
        // The threshold is ten times the exposure.
        let ran = shell("systemd-analyze security --no-pager --offline=yes --threshold=20 \"$0\"", &[unit]);
        assert_eq!(ran.code, Some(0), "{}", String::from_utf8_lossy(&ran.out));
    }
}

#[test]
fn both_units_of_the_service_differ_in_their_names_alone() {
    let read = |file: &str| fs::read_to_string(top().join("examples/systemd").join(file)).expect("a unit");
    let lines = |text: &str| text.lines().filter(|line| !line.starts_with('#')).map(str::to_owned).collect::<Vec<_>>();
    let instance = read("seaprox@.service").replace("/%i.toml", "/seaprox.toml").replace("/%i", "");
    let (one, other) = (lines(&read("seaprox.service")), lines(&instance));
    let differ: Vec<_> = one.iter().zip(&other).filter(|(one, other)| one != other).map(|(one, _)| one).collect();
    assert_eq!(one.len(), other.len());
    assert!(differ.iter().all(|line| line.starts_with("Description=")), "{differ:?}");
}

/// Returns the documents of a file of YAML.
fn documents(file: &str) -> Option<Vec<Value>> {
    let read = "import json, sys, yaml; print(json.dumps(list(yaml.safe_load_all(open(sys.argv[1])))))";
    if shell("python3 -c 'import yaml'", &[]).code != Some(0) {
        println!("skipped: python3 has no yaml");
        return None;
    }
    let path = top().join("examples/kubernetes").join(file);
    let text = output(&format!("python3 -c '{read}' \"$0\""), &[path.to_str().expect("UTF-8")]);
    serde_json::from_str(&text).ok()
}

fn of_kind<'a>(all: &'a [Value], kind: &str) -> &'a Value {
    all.iter().find(|one| one["kind"] == kind).unwrap_or_else(|| panic!("no {kind}"))
}

fn names(list: &Value) -> Vec<&str> {
    list.as_array().into_iter().flatten().filter_map(|one| one["name"].as_str()).collect()
}

#[test]
fn the_manifests_of_kubernetes_have_probes_and_a_valid_configuration() {
    for file in ["gateway.yaml", "agent.yaml"] {
        let Some(all) = documents(file) else { return };
        for one in &all {
            let is_named = one["metadata"]["name"].is_string() && one["apiVersion"].is_string();
            assert!(is_named, "{file}: {one}");
        }
        let deployment = &of_kind(&all, "Deployment")["spec"];
        assert_eq!(deployment["selector"]["matchLabels"], deployment["template"]["metadata"]["labels"], "{file}");
        let pod = &deployment["template"]["spec"];
        let container = &pod["containers"][0];
        for (probe, path) in
            [("startupProbe", "/healthz"), ("livenessProbe", "/healthz"), ("readinessProbe", "/readyz")]
        {
            let get = &container[probe]["httpGet"];
            assert_eq!(get["path"], path, "{file}: {probe}");
            assert!(names(&container["ports"]).contains(&get["port"].as_str().unwrap()), "{file}: {probe}");
        }
        for mount in names(&container["volumeMounts"]) {
            assert!(names(&pod["volumes"]).contains(&mount), "{file}: {mount}");
        }
        assert_eq!(container["securityContext"]["readOnlyRootFilesystem"], true);
        assert_eq!(pod["securityContext"]["runAsNonRoot"], true);
        if let Some(service) = all.iter().find(|one| one["kind"] == "Service") {
            assert_eq!(service["spec"]["selector"], deployment["selector"]["matchLabels"]);
            let target = service["spec"]["ports"][0]["targetPort"].as_str().unwrap();
            assert!(names(&container["ports"]).contains(&target));
        }
        let map = &of_kind(&all, "ConfigMap");
        let volume = pod["volumes"].as_array().unwrap().iter().find(|one| one["name"] == "config").unwrap();
        assert_eq!(volume["configMap"]["name"], map["metadata"]["name"]);
        let scratch = Scratch::new();
        // The files of the Secret, in the place of its volume.
        let keys = scratch.file("keys");
        assert_eq!(kit::run(&["keygen", "--config-dir", &keys]).code, Some(0));
        fs::write(format!("{keys}/token"), "0123456789abcdef0123456789abcdef").expect("a token");
        fs::set_permissions(format!("{keys}/token"), PermissionsExt::from_mode(0o600)).expect("a mode");
        let text = map["data"]["seaprox.toml"].as_str().unwrap().replace("/etc/seaprox/keys", &keys);
        let toml = scratch.write("seaprox.toml", text);
        let ran = kit::run(&["check", &toml]);
        assert_eq!(ran.code, Some(0), "{file}: {}", ran.err);
        // The probes ask at the port of the admin server.
        let port = container["ports"].as_array().unwrap().iter().find(|port| port["name"] == "admin").unwrap();
        let admin = format!("admin = [\"0.0.0.0:{}\"]", port["containerPort"]);
        assert!(map["data"]["seaprox.toml"].as_str().unwrap().contains(&admin), "{file}");
    }
}

#[test]
fn the_scripts_of_packages_and_guests_are_valid_shell() {
    let mut scripts: Vec<PathBuf> =
        ["build-deb", "build-static", "guest", "install-system-tools", "try-container", "try-deb", "try-static"]
            .map(|it| top().join("scripts").join(it))
            .into();
    scripts.extend(["postinst", "prerm", "postrm"].map(|it| top().join("packaging/debian").join(it)));
    scripts.push(top().join("tests/system/deb-in-guest.sh"));
    for script in scripts {
        let ran = shell("sh -n \"$0\"", &[script.to_str().expect("UTF-8")]);
        assert_eq!(ran.code, Some(0), "{}: {}", script.display(), ran.err);
    }
}
