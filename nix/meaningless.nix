# Options of impermanence and preservation that have no meaning here, and why.
rec {
  # Of a store as a whole.
  store = {
    inherit (entry) persistentStoragePath hideMounts allowTrash;
    commonMountOptions = entry.mountOptions;
    enableDebugging = "there is no script to debug; the journal has what a reset does";
    enableWarnings = "a warning here means that something will not work";
  };

  # Of a user.
  user = {
    inherit (store) commonMountOptions;
  };

  # Of one path.
  entry = {
    persistentStoragePath = "persisted paths stay in place, and there is no second copy";
    hideMounts = "there are no mounts to hide";
    hideMount = "there are no mounts to hide";
    allowTrash = "nothing is mounted, and trash works as in any directory";
    method = "persisted paths are neither mounted nor linked";
    how = "persisted paths are neither mounted nor linked";
    inInitrd = "everything is in place before the root is mounted";
    mountOptions = "there are no mounts that could have options";
    createLinkTarget = "there is no link";
    configureParent = "the parent is made as `parent` says whenever that is given";
  };
}
