//! Certificates: issued, stored, read back, refused.

use super::*;
use crate::identity::{IdentityError, PeerIdentity, RootPin, Subject};

#[test]
fn an_agent_certificate_says_what_the_issuer_decided() {
    let world = World::new("fleet.example");
    let agent = world.agent(Validity::new(1_000, 4_000).unwrap());
    let read = agent.describe();
    assert_eq!(read.trust_domain.as_str(), "fleet.example");
    assert_eq!(read.subject, Subject::Cluster { name: "eu-1".into(), uid: "uid-7".into() });
    assert_eq!(read.serial, 77);
    assert_eq!((read.not_before_unix, read.not_after_unix), (1_000, 4_000));
    assert_eq!(read.renew_at_unix(), 3_000);
    assert_eq!(read.key_digest, agent.key().public().digest());
}

#[test]
fn the_largest_serial_is_kept() {
    let world = World::new("fleet.example");
    let key = KeyMaterial::generate().unwrap();
    for serial in [1, 0x80, u128::MAX] {
        let chain = world.issuer.issue_agent(&key.public(), "a", "u", serial, around_now(DAY)).unwrap();
        let identity = Identity::new(&chain, key.clone()).unwrap();
        assert_eq!(identity.describe().serial, serial);
    }
    let refused = world.issuer.issue_agent(&key.public(), "a", "u", 0, around_now(DAY));
    assert!(matches!(refused, Err(IdentityError::Name { .. })));
}

#[test]
fn authorities_survive_storage() {
    let world = World::new("fleet.example");
    let root_key = KeyMaterial::from_pem(&world.root.key().expose_pem()).unwrap();
    let root = TrustDomain::from_pem(world.root.certificate_pem(), root_key).unwrap();
    assert_eq!(root.pin(), world.root.pin());
    assert_eq!(root.name(), world.root.name());
    assert_eq!(world.bundle().pins().unwrap(), [root.pin()]);

    let key = KeyMaterial::from_pem(&world.issuer.key().expose_pem()).unwrap();
    let issuer = IssuingAuthority::from_pem(world.issuer.chain_pem(), key).unwrap();
    assert_eq!(issuer.trust_domain(), world.root.name());
}

#[test]
fn parts_of_different_owners_do_not_combine() {
    let one = World::new("one.example");
    let other = World::new("other.example");
    let stranger = || KeyMaterial::generate().unwrap();
    assert!(TrustDomain::from_pem(one.root.certificate_pem(), stranger()).is_err());
    assert!(IssuingAuthority::from_pem(one.issuer.chain_pem(), stranger()).is_err());
    assert!(Identity::new(one.hub("n1", 3).chain_pem(), stranger()).is_err());
    assert!(ServerTls::new(one.hub("n1", 3), other.bundle(), PeerAdmission::Enrolment).is_err());
    let agent = one.agent(around_now(DAY));
    assert!(ServerTls::new(agent, one.bundle(), PeerAdmission::Enrolment).is_err());
    let both = format!("{}{}", one.root.certificate_pem(), other.root.certificate_pem());
    assert!(TrustBundle::from_pem(&both).is_err());
    let leaf = one.hub("n1", 3);
    assert!(TrustBundle::from_pem(leaf.chain_pem()).is_err());
}

#[test]
fn a_bundle_holds_the_old_root_and_the_new() {
    let name = TrustDomainName::new("fleet.example").unwrap();
    let root = |serial| {
        let key = KeyMaterial::generate().unwrap();
        TrustDomain::create(&name, key, serial, around_now(DAY)).unwrap()
    };
    let (old, new) = (root(1), root(2));
    let pem = format!("{}{}", old.certificate_pem(), new.certificate_pem());
    let bundle = TrustBundle::from_pem(&pem).unwrap();
    assert_eq!(bundle.pins().unwrap(), [old.pin(), new.pin()]);
    assert_eq!(bundle.trust_domain(), &name);
}

#[test]
fn signing_requests_prove_their_key() {
    let key = KeyMaterial::generate().unwrap();
    let request = key.signing_request().unwrap();
    assert_eq!(SubjectKey::from_signing_request(&request).unwrap(), key.public());
    // Whatever byte is bent, no other key is ever accepted.
    for index in 0..request.len() {
        let mut bent = request.clone();
        bent[index] ^= 1;
        if let Ok(accepted) = SubjectKey::from_signing_request(&bent) {
            assert_eq!(accepted, key.public(), "byte {index}");
        }
    }
    let mut signature = request.clone();
    *signature.last_mut().unwrap() ^= 1;
    assert!(matches!(SubjectKey::from_signing_request(&signature), Err(IdentityError::Request { .. })));
    let mut longer = request.clone();
    longer.push(0);
    assert!(SubjectKey::from_signing_request(&longer).is_err());
    assert!(SubjectKey::from_signing_request(&vec![0x30; 5000]).is_err());
    assert!(SubjectKey::from_signing_request(&request[..request.len() - 1]).is_err());
}

#[test]
fn names_that_certificates_cannot_carry_are_refused() {
    let world = World::new("fleet.example");
    let key = KeyMaterial::generate().unwrap().public();
    for name in ["", "a/b", "a b", "..", "ä"] {
        let refused = world.issuer.issue_agent(&key, name, "uid", 5, around_now(DAY));
        assert!(refused.is_err(), "{name:?} was accepted");
    }
    for name in ["", "*.example", "a..b", "-a", "under_score", &"a.".repeat(200)] {
        assert!(HubNames::new(&[name]).is_err(), "{name:?} was accepted");
    }
    assert!(HubNames::new(&["hub.example", "::1", "10.0.0.1"]).is_ok());
    assert!(TrustDomainName::new("Upper").is_err());
    assert!(Validity::new(5, 5).is_err());
    assert!(Validity::new(0, u64::MAX).is_err());
}

#[test]
fn debug_never_shows_a_key() {
    let world = World::new("fleet.example");
    let identity = world.agent(around_now(DAY));
    let pem = identity.key().expose_pem();
    let body: Vec<&str> = pem.lines().filter(|line| !line.contains("---")).collect();
    let shown =
        format!("{:?} {:?} {:?} {:?} {:?}", world.root, world.issuer, identity, world.server(), world.enrolled(),);
    assert!(!shown.contains("PRIVATE"));
    for line in body {
        assert!(!shown.contains(line));
    }
    let broken = KeyMaterial::from_pem("-----BEGIN PRIVATE KEY-----\nc2VjcmV0\n").unwrap_err();
    assert!(!format!("{broken:?} {broken}").contains("c2VjcmV0"));
}

#[test]
fn garbage_is_no_certificate() {
    assert!(PeerIdentity::from_der(&[]).is_err());
    assert!(PeerIdentity::from_der(&[0x30; 64]).is_err());
    assert!(RootPin::of_der(&[1, 2, 3]).is_err());
    assert!(TrustBundle::from_pem(&"x".repeat(65 * 1024)).is_err());
}

#[tokio::test]
async fn a_successor_is_believed_by_those_who_know_only_the_old_root() {
    let name = TrustDomainName::new("fleet.example").unwrap();
    let root = |serial| {
        let key = KeyMaterial::generate().unwrap();
        TrustDomain::create(&name, key, serial, around_now(DAY)).unwrap()
    };
    let (old, new) = (root(1), root(2));
    let cross = old.cross_sign(&new, 3, around_now(DAY)).unwrap();
    let issuer_key = KeyMaterial::generate().unwrap();
    let issuer_of = |root: &TrustDomain| {
        let chain = root.sign_issuer(&issuer_key.public(), "n1", 4, around_now(DAY)).unwrap();
        IssuingAuthority::from_pem(&chain, issuer_key.clone()).unwrap()
    };
    let (before, after) = (issuer_of(&old), issuer_of(&new));
    let agent = |issuer: &IssuingAuthority| {
        let key = KeyMaterial::generate().unwrap();
        let chain = issuer.issue_agent(&key.public(), "a", "u", 5, around_now(DAY)).unwrap();
        Identity::new(&chain, key).unwrap()
    };
    let bundle = |pem: &str| TrustBundle::from_pem(pem).unwrap();
    let both = bundle(&format!("{}{}", new.certificate_pem(), old.certificate_pem()));
    assert_eq!(agent(&before).root_among(&both), Some(old.pin()));
    assert_eq!(agent(&after).root_among(&both), Some(new.pin()));
    assert_eq!(agent(&before).root_among(&bundle(new.certificate_pem())), None);

    let key = KeyMaterial::generate().unwrap();
    let names = HubNames::new(&["localhost"]).unwrap();
    let chain = after.issue_hub(&key.public(), "n1", &names, 6, around_now(DAY)).unwrap();
    let shown = format!("{}{cross}{}", chain.strip_suffix(new.certificate_pem()).unwrap(), old.certificate_pem());
    let identity = Identity::new(&shown, key).unwrap();
    let tls = ServerTls::new(identity, both, PeerAdmission::Enrolment).unwrap();
    let address = "127.0.0.1:0".parse().unwrap();
    let listener = Listener::bind(address, &tls, ListenerLimits::default()).unwrap();
    let address = listener.local_address().unwrap().to_string();
    let dialer = Dialer::bind(Tuning::default()).unwrap();
    let believers = [
        ClientTls::enrolled(bundle(old.certificate_pem()), agent(&before)),
        ClientTls::enrolled(bundle(new.certificate_pem()), agent(&after)),
        ClientTls::pinned(old.pin()),
        ClientTls::pinned(new.pin()),
    ];
    for tls in believers {
        dialer.dial(&address, &tls).await.unwrap();
    }
}
