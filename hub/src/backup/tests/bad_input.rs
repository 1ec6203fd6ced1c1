//! Bad input: one clear sentence each, and an unchanged disk.

use super::*;

/// Restores into a fresh directory, which must be as before afterwards; gives the sentence.
fn refused(world: &World, file: &[u8], key: &[u8; 32]) -> String {
    let folder = tempfile::tempdir_in(world.folder.path()).unwrap();
    let config = target(&folder.path().join("data"), key);
    let before = listing(folder.path());
    let sealer = trust::operator_key(&config, None).unwrap();
    let error = restore(&config, &sealer, file, AdminAccess::Keep, NOW).unwrap_err().to_string();
    assert_eq!(listing(folder.path()), before, "{error}: something was left on the disk");
    assert!(!error.contains('\n') && error.len() < 300, "{error}");
    if !error.contains("not empty") {
        let verified = verify(file, &sealer).unwrap_err().to_string();
        assert_eq!(verified, error, "a look beforehand must say the same");
    }
    error
}

fn check(world: &World, file: &[u8], key: &[u8; 32], expect: &[&str]) {
    let error = refused(world, file, key);
    for part in expect {
        assert!(error.contains(part), "{error:?} does not say {part:?}");
    }
}

/// Puts another header into a file; its own hash fits again.
fn with_header(file: &[u8], change: impl FnOnce(&mut Header)) -> Vec<u8> {
    let length = u32::from_be_bytes(file[9..13].try_into().unwrap()) as usize;
    let mut header: Header = serde_json::from_slice(&file[13..13 + length]).unwrap();
    change(&mut header);
    let header = serde_json::to_vec(&header).unwrap();
    let mut changed = file[..9].to_vec();
    changed.extend_from_slice(&u32::try_from(header.len()).unwrap().to_be_bytes());
    changed.extend_from_slice(&header);
    changed.extend_from_slice(&file[13 + length..file.len() - 32]);
    resum(changed)
}

fn resum(mut file: Vec<u8>) -> Vec<u8> {
    let sum = blake3::hash(&file);
    file.extend_from_slice(sum.as_bytes());
    file
}

#[test]
fn damaged_foreign_and_newer_files_are_told_apart() {
    let mut world = World::new();
    for number in 0..200 {
        world.deploy(&format!("app-{number}"));
    }
    let (file, _) = world.file();
    let length = file.len();
    check(&world, b"apiVersion: v1\nkind: List\n", &KEY, &["no backup of Windlass", "windlass admin backup"]);
    check(&world, b"", &KEY, &["no backup of Windlass"]);
    for cut in [5, 40, 600, length / 2, length - 40, length - 1] {
        check(&world, &file[..cut], &KEY, &["cut off after", "take the one before"]);
    }
    for at in [20, 700, length / 2, length - 50, length - 5] {
        let mut flipped = file.clone();
        flipped[at] ^= 1;
        let error = refused(&world, &flipped, &KEY);
        assert!(error.contains("damaged") || error.contains("operator key"), "byte {at}: {error}");
    }
    let mut newer = file[..length - 32].to_vec();
    newer[8] = 2;
    check(&world, &resum(newer), &KEY, &["format 2", "up to 1", "newer"]);
    let newer = with_header(&file, |header| header.state_version = 99);
    check(&world, &newer, &KEY, &["state version 99", "use that release"]);
    let ours = Sealer::new(&KEY).unwrap().key_id();
    let other = Sealer::new(&[8; 32]).unwrap().key_id();
    check(&world, &file, &[8; 32], &[&ours, &other, "--operator-key-file"]);
}

#[test]
fn whoever_changes_a_file_without_the_key_is_found_out() {
    let mut world = World::new();
    world.deploy("shop");
    let (file, _) = world.file();
    // The hash over the file is no secret: anybody can make it fit again.
    let mut changed = file[..file.len() - 32].to_vec();
    let last = changed.len() - 1;
    changed[last] ^= 1;
    check(&world, &resum(changed), &KEY, &["does not open"]);
    let moved = with_header(&file, |header| header.epoch.0 += 1);
    check(&world, &moved, &KEY, &["does not open"]);
}

#[test]
fn a_directory_in_use_is_not_touched() {
    let mut world = World::new();
    world.deploy("shop");
    let (file, _) = world.file();
    let config = world.target("used");
    std::fs::create_dir_all(&config.data).unwrap();
    std::fs::write(config.data.join("notes.txt"), "mine").unwrap();
    let restore_it = |config: &Config| restore(config, &world.sealer, file.as_slice(), AdminAccess::Keep, NOW);
    let error = restore_it(&config).unwrap_err().to_string();
    assert!(error.contains("notes.txt") && error.contains("empty directory"), "{error}");
    assert_eq!(listing(&config.data).len(), 1);

    let config = world.target("done");
    restore_it(&config).unwrap();
    let before = listing(&config.data);
    let error = restore_it(&config).unwrap_err().to_string();
    assert!(error.contains("node 1 of the group"), "{error}");
    assert_eq!(listing(&config.data), before);
}

#[test]
fn an_interrupted_restore_is_no_group_and_can_be_repeated() {
    let mut world = World::new();
    world.deploy("shop");
    let (file, _) = world.file();
    let config = world.target("interrupted");
    restore(&config, &world.sealer, file.as_slice(), AdminAccess::Keep, NOW).unwrap();
    // As if the power had gone before the last step: everything is in its place but the store.
    std::fs::create_dir_all(config.data.join(RESTORING)).unwrap();
    std::fs::rename(config.data.join("store"), config.data.join(RESTORING).join("store")).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let error = runtime.block_on(crate::init::init(&config)).unwrap_err().to_string();
    assert!(error.contains("interrupted restore"), "{error}");
    assert!(Store::open(&config.data.join("store"), &StoreOptions::default()).is_err());
    restore(&config, &world.sealer, file.as_slice(), AdminAccess::Keep, NOW).unwrap();
    assert!(!config.data.join(RESTORING).exists());
    assert!(Store::peek(&config.data.join("store")).unwrap().is_some());
}
