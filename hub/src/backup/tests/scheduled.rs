//! Destinations: a directory that is missing, full or shared with other files.

use super::*;
use crate::backup::destination::Destination;

#[tokio::test]
async fn only_the_newest_of_ours_are_kept() {
    let mut world = World::new();
    world.deploy("shop");
    let folder = tempfile::tempdir().unwrap();
    for other in ["notes.txt", "20260101-000000.tar.gz", "20260101-000000.windlass-backup.old"] {
        std::fs::write(folder.path().join(other), "mine").unwrap();
    }
    let place = Destination::Directory(folder.path().to_owned());
    let backup = Arc::new(world.backup());
    let names: Vec<String> =
        (0..5).map(|day| windlass_protocol::backup::file_name(NOW.plus(Millis::from_secs(day * 86_400)))).collect();
    for name in &names {
        let summary = place.save(name, &backup).await.unwrap();
        assert_eq!(summary.bytes, std::fs::metadata(folder.path().join(name)).unwrap().len());
    }
    let kept = place.prune(3).await.unwrap();
    assert_eq!(kept, [names[4].clone(), names[3].clone(), names[2].clone()]);
    let left: Vec<String> = listing(folder.path())
        .into_iter()
        .map(|(path, _)| path.file_name().unwrap().to_string_lossy().into_owned())
        .collect();
    assert_eq!(left.len(), 6, "{left:?}");
    assert!(left.contains(&"notes.txt".to_owned()));
    let taken = place.save(&names[4], &backup).await.unwrap_err().to_string();
    assert!(taken.contains("there already"), "{taken}");
}

#[tokio::test]
async fn a_directory_that_is_missing_or_full_is_explained() {
    let mut world = World::new();
    world.deploy("shop");
    let backup = Arc::new(world.backup());
    let missing = world.folder.path().join("not-mounted");
    let error = Destination::Directory(missing.clone()).save("a", &backup).await.unwrap_err().to_string();
    assert!(error.contains("not-mounted does not exist") && error.contains("mount"), "{error}");
    assert!(!missing.exists());

    // Where every write fails for want of space.
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let error = backup.write(full).map(|_| ()).unwrap_err();
    let BackupError::Outside(windlass_protocol::backup::BackupError::Io(source)) = error else {
        panic!("{error}");
    };
    let told = BackupError::file("write", "/backups/x")(source).to_string();
    assert!(told.contains("/backups/x") && told.contains("free space"), "{told}");
}
