//! A rotation of one node's keys on its disk.

use std::{collections::BTreeSet, path::Path};

use windlass_transport::identity::TrustDomainName;

use super::*;
use crate::{
    config::{Config, Flags},
    sealing::OPERATOR_KEY_BYTES,
};

const NOW: Millis = Millis::from_secs(2_000_000_000);

fn config(folder: &Path) -> Config {
    Config::load(&Flags { data: Some(folder.to_owned()), ..Flags::default() }).unwrap()
}

fn sealer(byte: u8) -> Sealer {
    Sealer::new(&[byte; OPERATOR_KEY_BYTES]).unwrap()
}

fn serials() -> impl FnMut() -> u128 {
    let mut serial = 0;
    move || {
        serial += 1;
        serial
    }
}

fn pins(pem: &str) -> Vec<RootPin> {
    TrustBundle::from_pem(pem).unwrap().pins().unwrap()
}

#[test]
fn blocks_join_to_the_whole() {
    let name = TrustDomainName::new("fleet.example").unwrap();
    let root = || {
        let key = KeyMaterial::generate().unwrap();
        TrustDomain::create(&name, key, 1, validity(NOW, ROOT_LIFE).unwrap()).unwrap().certificate_pem().to_owned()
    };
    let (one, two) = (root(), root());
    let both = format!("{one}{two}");
    assert_eq!(blocks(&both).concat(), both);
    assert_eq!(blocks(&both), [one.as_str(), two.as_str()]);
    assert_eq!(blocks("no certificate"), Vec::<&str>::new());
}

#[test]
fn a_node_follows_a_rotation_and_survives_a_restart_in_between() {
    let folder = tempfile::tempdir().unwrap();
    let (config, sealer) = (config(folder.path()), sealer(1));
    let trust = Trust::create(&config, &sealer, "fleet.example", 1, NOW, serials()).unwrap();
    let founding = Trust::founding_record(&config).unwrap();
    let old = trust.pin();
    assert!(!trust.follow(&founding, &sealer, 1, NOW, 9).unwrap());
    assert!(matches!(finish(&founding), Err(RotationError::NotUnderWay)));

    let begun = begin(&founding, &sealer, NOW, serials()).unwrap();
    assert!(is_rotating(&begun));
    assert!(matches!(begin(&begun, &sealer, NOW, serials()), Err(RotationError::UnderWay)));
    assert!(trust.follow(&begun, &sealer, 1, NOW, 9).unwrap());
    let new = trust.pin();
    assert_ne!(new, old);
    assert_eq!(pins(trust.bundle().pem()), [new, old]);

    let trust = Trust::load(&config, &sealer).unwrap();
    assert_eq!(trust.pin(), new);
    assert!(!trust.follow(&begun, &sealer, 1, NOW, 9).unwrap(), "it is there already");
    let identity = trust.hub_identity(1, &[], NOW, 10).unwrap();
    assert_eq!(identity.root_among(&trust.bundle()), Some(new));
    assert_eq!(blocks(identity.chain_pem()).len(), 4);

    let finished = finish(&begun).unwrap();
    assert_eq!(finished.version, 3);
    assert!(trust.follow(&finished, &sealer, 1, NOW, 11).unwrap());
    assert_eq!(pins(trust.bundle().pem()), [new]);
    assert_eq!(blocks(trust.hub_identity(1, &[], NOW, 12).unwrap().chain_pem()).len(), 4);

    // And once more: each new root is signed by the one before.
    let again = begin(&finished, &sealer, NOW, serials()).unwrap();
    assert!(trust.follow(&again, &sealer, 1, NOW, 13).unwrap());
    assert_eq!(pins(&again.roots).into_iter().chain([old]).collect::<BTreeSet<_>>().len(), 3);
}

#[test]
fn another_operator_key_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let config = config(folder.path());
    let trust = Trust::create(&config, &sealer(1), "fleet.example", 1, NOW, serials()).unwrap();
    let founding = Trust::founding_record(&config).unwrap();
    assert!(begin(&founding, &sealer(2), NOW, serials()).unwrap_err().to_string().contains("operator key"));
    let begun = begin(&founding, &sealer(1), NOW, serials()).unwrap();
    assert!(trust.follow(&begun, &sealer(2), 1, NOW, 9).is_err());
    assert_eq!(Trust::load(&config, &sealer(1)).unwrap().pin(), pins(&founding.roots)[0]);
}
