# The binary, with what belongs to it.
{
  lib,
  stdenv,
  rustPlatform,
  rustc,
  installShellFiles,
  patchelf,
  # The user space of ZFS that fits the kernel's module; only its libraries are used.
  zfs,
  withZfs ? true,
}:
let
  cargo = lib.importTOML ../Cargo.toml;
  needsRust = cargo.workspace.package.rust-version;
  isTooNew = lib.versionOlder rustc.version needsRust;
  libraries = lib.optionals withZfs (
    map (library: "${lib.getLib zfs}/lib/${library}") [
      "libzfs_core.so.3"
      "libnvpair.so.3"
    ]
  );
in
rustPlatform.buildRustPackage {
  pname = cargo.package.name;
  inherit (cargo.workspace.package) version;

  # What cargo wants to see of the workspace, so that a word in a document builds nothing anew.
  src = lib.fileset.toSource {
    root = ../.;
    fileset = lib.fileset.unions [
      ../Cargo.lock
      ../Cargo.toml
      ../README.md
      ../btrfs
      ../nix/options.json
      ../src
      ../systemd
      ../testkit
      ../tests
      ../vm-tests
      ../xtask
      ../zfs
    ];
  };
  cargoLock.lockFile = ../Cargo.lock;

  cargoBuildFlags = [ "--package=darlings" ];
  # The others need root, loop devices and virtual machines: script/test.
  cargoTestFlags = [
    "--package=darlings"
    "--lib"
  ];

  nativeBuildInputs = [ installShellFiles ] ++ lib.optional withZfs patchelf;

  # Built apart, so that what it needs gets into nothing that is installed. It cannot run where the build
  # is for another machine.
  postInstall = lib.optionalString (stdenv.buildPlatform.canExecute stdenv.hostPlatform) ''
    xtask() { cargo run --quiet --offline --release --package=xtask -- "$@"; }
    xtask completions completions
    installShellCompletion completions/darlings.{bash,fish} completions/_darlings
    xtask man man
    installManPage man/*
  '';

  # The libraries are opened by name at run time. fixupPhase removes from RUNPATH what the binary does
  # not link to, so they are added after it.
  postFixup = lib.optionalString withZfs ''
    patchelf --add-rpath ${lib.makeLibraryPath [ zfs ]} $out/bin/darlings
  '';

  passthru = {
    inherit
      isTooNew
      libraries
      needsRust
      withZfs
      ;
    hasRust = rustc.version;
  };

  meta = {
    inherit (cargo.package) description;
    license = with lib.licenses; [
      mit
      asl20
    ];
    mainProgram = "darlings";
    # The module says it in words.
    broken = isTooNew;
    platforms = lib.platforms.linux;
  };
}
