//! Owns the tests of the certificate authority on disk.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;

use rcgen::KeyPair;

use super::*;

struct Files {
    _dir: tempfile::TempDir,
    certificate: PathBuf,
    key: PathBuf,
}

fn files() -> Files {
    let dir = tempfile::tempdir().unwrap();
    Files {
        certificate: dir.path().join("state/ca.crt"),
        key: dir.path().join("state/ca.key"),
        _dir: dir,
    }
}

fn constraints() -> Constraints {
    let names = ["api.anthropic.com", "*.github.com"];
    Constraints::Names(names.map(|n| HostPattern::parse(n).unwrap()).to_vec())
}

fn load_or_create(files: &Files) -> Result<(CertificateAuthority, bool), CaError> {
    CertificateAuthority::load_or_create(
        &files.certificate,
        &files.key,
        &constraints(),
        "Test CA",
        PERSISTENT_LIFETIME,
    )
}

fn created() -> Files {
    let files = files();
    assert!(load_or_create(&files).ok().unwrap().1);
    files
}

fn refusal(files: &Files) -> CaError {
    let loaded = CertificateAuthority::load(&files.certificate, &files.key);
    loaded.err().expect("the authority was loaded")
}

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[test]
fn a_made_authority_is_kept_and_found_again() {
    let files = created();
    assert_eq!((mode(&files.key), mode(&files.certificate)), (0o600, 0o644));
    let directory = files.key.parent().unwrap();
    assert_eq!(mode(directory), 0o700);
    assert_eq!(std::fs::read_dir(directory).unwrap().count(), 2);

    let (first, made) = load_or_create(&files).ok().unwrap();
    assert!(!made);
    let second = CertificateAuthority::load(&files.certificate, &files.key)
        .ok()
        .unwrap();
    assert_eq!(first.certificate_pem(), second.certificate_pem());
    assert_eq!(first.describe(), second.describe());
}

#[test]
fn a_loaded_authority_signs_leaves_that_chain_to_the_stored_root() {
    let files = created();
    let loaded = CertificateAuthority::load(&files.certificate, &files.key)
        .ok()
        .unwrap();
    let key = KeyPair::generate().unwrap();
    let mut leaf = CertificateParams::default();
    leaf.use_authority_key_identifier_extension = true;
    let leaf = loaded.sign(&leaf, &key).unwrap();

    let stored = read_certificates(&files.certificate).unwrap();
    let (root, leaf) = (parse(&stored[0]).unwrap(), parse(&leaf).unwrap());
    leaf.verify_signature(Some(root.public_key())).unwrap();
    assert_eq!(leaf.issuer().as_raw(), root.subject().as_raw());
    let identifiers = |certificate: &X509Certificate<'_>| {
        use x509_parser::extensions::ParsedExtension as Parsed;
        let ids = certificate
            .iter_extensions()
            .filter_map(|ext| match ext.parsed_extension() {
                Parsed::SubjectKeyIdentifier(id) => Some(id.0.to_vec()),
                Parsed::AuthorityKeyIdentifier(id) => {
                    id.key_identifier.as_ref().map(|id| id.0.to_vec())
                }
                _ => None,
            });
        ids.collect::<Vec<_>>()
    };
    assert_eq!(identifiers(&leaf), identifiers(&root));
    assert_eq!(identifiers(&leaf).len(), 1);
}

#[test]
fn the_certificate_says_what_clients_demand() {
    let files = created();
    let stored = read_certificates(&files.certificate).unwrap();
    let root = parse(&stored[0]).unwrap();
    root.verify_signature(None).unwrap();
    let basic = root.basic_constraints().unwrap().unwrap();
    assert!(basic.critical && basic.value.ca && basic.value.path_len_constraint == Some(0));
    let usage = root.key_usage().unwrap().unwrap();
    assert!(usage.critical && usage.value.key_cert_sign() && usage.value.crl_sign());
    assert!(!usage.value.digital_signature());
    assert!(root.name_constraints().unwrap().unwrap().critical);
    let validity = root.validity();
    assert!(validity.not_before.timestamp() < jiff::Timestamp::now().as_second() - 3500);
    let lifetime = validity.not_after.timestamp() - validity.not_before.timestamp();
    assert_eq!(
        lifetime.unsigned_abs(),
        (PERSISTENT_LIFETIME + BACK_DATE).as_secs()
    );
}

#[test]
fn a_key_that_others_can_read_is_refused_with_the_command_that_mends_it() {
    let files = created();
    for open in [0o644, 0o640, 0o604, 0o660, 0o610] {
        std::fs::set_permissions(&files.key, Permissions::from_mode(open)).unwrap();
        let error = refusal(&files);
        let text = error.to_string();
        assert!(text.contains(&format!("(mode {open:04o})")), "{text}");
        let command = format!("chmod 600 {}", files.key.display());
        assert_eq!(error.help().unwrap(), command);
    }
    std::fs::set_permissions(&files.key, Permissions::from_mode(0o400)).unwrap();
    assert!(CertificateAuthority::load(&files.certificate, &files.key).is_ok());
}

#[test]
fn a_key_of_another_certificate_is_refused() {
    let (mut files, other) = (created(), created());
    files.key = other.key.clone();
    assert!(matches!(refusal(&files), CaError::Mismatch { .. }));
}

#[test]
fn garbage_and_half_written_files_are_refused_and_never_replaced() {
    for (half, cut) in [
        ("key", true),
        ("key", false),
        ("certificate", true),
        ("certificate", false),
    ] {
        let files = created();
        let path = match half {
            "key" => &files.key,
            _ => &files.certificate,
        };
        let whole = std::fs::read_to_string(path).unwrap();
        let broken = match cut {
            true => &whole[..whole.len() / 2],
            false => "garbage",
        };
        std::fs::write(path, broken).unwrap();
        let error = load_or_create(&files).err().unwrap();
        let expected = match half {
            "key" => matches!(error, CaError::Key { .. }),
            _ => matches!(error, CaError::Certificate { .. }),
        };
        assert!(expected && error.help().is_some(), "{error}");
        assert!(!error.to_string().contains(&whole[40..60]), "{error}");
        assert_eq!(std::fs::read_to_string(path).unwrap(), broken);
    }
}

#[test]
fn a_crash_between_key_and_certificate_is_recovered_with_the_same_key() {
    let files = created();
    let key = std::fs::read(&files.key).unwrap();
    std::fs::remove_file(&files.certificate).unwrap();
    assert!(load_or_create(&files).ok().unwrap().1);
    assert_eq!(std::fs::read(&files.key).unwrap(), key);
}

#[test]
fn a_certificate_whose_key_is_gone_is_not_quietly_replaced() {
    let files = created();
    std::fs::remove_file(&files.key).unwrap();
    let error = load_or_create(&files).err().unwrap();
    assert!(matches!(error, CaError::MissingKey { .. }) && error.help().is_some());
    assert!(!files.key.exists());
}

#[test]
fn processes_that_start_together_agree_on_one_authority() {
    let files = files();
    let fingerprints = std::thread::scope(|scope| {
        let threads = [(); 8].map(|()| {
            scope.spawn(|| {
                let (authority, made) = load_or_create(&files).ok().unwrap();
                (authority.describe().sha256.clone(), made)
            })
        });
        threads.map(|thread| thread.join().unwrap())
    });
    assert!(
        fingerprints
            .iter()
            .all(|(sha256, _)| *sha256 == fingerprints[0].0)
    );
    assert_eq!(fingerprints.iter().filter(|(_, made)| *made).count(), 1);
}

#[test]
fn leaves_and_expired_authorities_cannot_be_loaded() {
    let files = created();
    let key = CaKey::read(&files.key).unwrap();
    let write = |params: CertificateParams| {
        let certificate = params.self_signed(&key).unwrap();
        std::fs::write(&files.certificate, certificate.pem()).unwrap();
    };
    write(CertificateParams::default());
    assert!(matches!(refusal(&files), CaError::NotAuthority { .. }));

    let mut no_cert_sign = CertificateParams::default();
    no_cert_sign.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    no_cert_sign.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    write(no_cert_sign);
    assert!(matches!(refusal(&files), CaError::NotAuthority { .. }));

    let mut expired = CertificateParams::default();
    expired.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    expired.not_after = (SystemTime::now() - Duration::from_secs(5)).into();
    write(expired);
    assert!(matches!(refusal(&files), CaError::Expired { .. }));
}

#[test]
fn an_intermediate_authority_is_shown_to_clients_and_bound_by_its_issuer() {
    let files = created();
    let root = CertificateAuthority::generate(
        &Constraints::Names(vec![HostPattern::parse("api.anthropic.com").unwrap()]),
        "Root",
        EPHEMERAL_LIFETIME,
    );
    let root = root.ok().unwrap();
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, "Team A");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    let signed = root
        .sign(&params, &CaKey::read(&files.key).unwrap())
        .unwrap();
    let file = pem::certificate(&signed) + root.certificate_pem();
    std::fs::write(&files.certificate, &file).unwrap();

    let loaded = CertificateAuthority::load(&files.certificate, &files.key)
        .ok()
        .unwrap();
    assert_eq!(loaded.certificate_pem(), file);
    assert_eq!(loaded.presented().collect::<Vec<_>>(), [signed]);
    assert!(loaded.may_sign(&Host::parse("api.anthropic.com").unwrap()));
    assert!(!loaded.may_sign(&Host::parse("github.com").unwrap()));
}

#[test]
fn a_subject_that_cannot_be_copied_exactly_is_refused() {
    let files = created();
    let mut params = CertificateParams::default();
    // The same attribute under another name: what rcgen writes it cannot read back.
    let organization = DnType::CustomDnType(vec![2, 5, 4, 10]);
    params
        .distinguished_name
        .push(DnType::OrganizationName, "a");
    params.distinguished_name.push(organization, "b");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    let certificate = params
        .self_signed(&CaKey::read(&files.key).unwrap())
        .unwrap();
    std::fs::write(&files.certificate, certificate.pem()).unwrap();
    let error = refusal(&files).to_string();
    assert!(
        error.contains("its subject cannot be reproduced"),
        "{error}"
    );
}

#[test]
fn a_key_beside_the_certificate_is_not_handed_to_agents() {
    let files = created();
    let both = [&files.key, &files.certificate].map(|p| std::fs::read_to_string(p).unwrap());
    std::fs::write(&files.certificate, both.concat()).unwrap();
    let loaded = CertificateAuthority::load(&files.certificate, &files.key)
        .ok()
        .unwrap();
    assert_eq!(loaded.certificate_pem(), both[1]);
}

#[test]
fn the_description_names_what_the_certificate_permits() {
    let files = created();
    let loaded = CertificateAuthority::load(&files.certificate, &files.key)
        .ok()
        .unwrap();
    let about = serde_json::to_value(loaded.describe()).unwrap();
    assert_eq!(about["commonName"], "Test CA");
    let permitted = serde_json::json!(["api.anthropic.com", "github.com"]);
    assert_eq!(about["permitted"], permitted);
    assert_eq!(about["sha256"].as_str().unwrap().len(), 64);
    assert_eq!(
        about["certificateFile"],
        files.certificate.to_str().unwrap()
    );
    assert!(about["notAfter"].as_str().unwrap().ends_with('Z'));
    let off = CertificateAuthority::generate(&Constraints::Off, "X", EPHEMERAL_LIFETIME);
    assert_eq!(off.ok().unwrap().describe().permitted, None);
}

#[test]
fn the_exported_key_is_the_one_that_signs() {
    let files = created();
    let loaded = CertificateAuthority::load(&files.certificate, &files.key)
        .ok()
        .unwrap();
    assert_eq!(
        loaded.export_key().expose(),
        std::fs::read(&files.key).unwrap()
    );
}

#[test]
fn an_authority_covers_its_patterns_and_no_wider_ones() {
    let made = CertificateAuthority::generate(&constraints(), "X", EPHEMERAL_LIFETIME);
    let made = made.ok().unwrap();
    for (pattern, covered) in [
        ("api.anthropic.com", true),
        ("*.github.com", true),
        ("*.anthropic.com", false),
        ("10.0.0.1", false),
    ] {
        assert_eq!(
            made.covers(&HostPattern::parse(pattern).unwrap()),
            covered,
            "{pattern}"
        );
    }
}
