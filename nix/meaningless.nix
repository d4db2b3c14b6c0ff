# Options of impermanence and preservation that have no meaning here, and why.
rec {
  # Of a store as a whole.
  store = {
    inherit (entry) persistentStoragePath hideMounts allowTrash;
    commonMountOptions = entry.mountOptions;
    enableDebugging = "there is no script to debug; the journal has what a reset does";
    enableWarnings = "a warning here says that something will not work";
  };

  # Of a user.
  user = {
    inherit (store) commonMountOptions;
  };

  # Of one path.
  entry = {
    persistentStoragePath = "what is kept stays in its own place, and there is no second one";
    hideMounts = "nothing is mounted that could be hidden";
    hideMount = "nothing is mounted that could be hidden";
    allowTrash = "nothing is mounted, and trash works as in any directory";
    method = "what is kept is neither mounted nor linked";
    how = "what is kept is neither mounted nor linked";
    inInitrd = "everything is in place before the root is mounted";
    mountOptions = "nothing is mounted that could have options";
    createLinkTarget = "there is no link";
    configureParent = "the parent is made as `parent` says whenever that is given";
  };
}
