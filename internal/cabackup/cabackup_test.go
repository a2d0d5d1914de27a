package cabackup

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/klauspost/compress/zstd"

	"github.com/certanchor/certanchor/chaincode/cctest"
	"github.com/certanchor/certanchor/internal/framelog"
	"github.com/certanchor/certanchor/internal/oplog"
)

const (
	crashEnv    = "CERTANCHOR_BACKUP_CRASH" // a step to die at
	crashArgs   = "CERTANCHOR_BACKUP_ARGS"  // backup or restore, the file, the directory
	testMagic   = framelog.Magic(0xca1edb0c)
	testSecret  = "-----BEGIN ENCRYPTED PRIVATE KEY-----\nc2VjcmV0\n-----END ENCRYPTED PRIVATE KEY-----\n"
	hmacClient  = "signer requester hmac:00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff\n"
	tokenClient = "operator operator 7d5f\n"
)

var (
	quiet      = slog.New(slog.DiscardHandler)
	passphrase = []byte("another passphrase")
)

func TestMain(m *testing.M) {
	if step := os.Getenv(crashEnv); step != "" {
		crash(step, strings.Fields(os.Getenv(crashArgs)))
	}
	os.Exit(m.Run())
}

// crash dies at a step of a backup or restore.
func crash(at string, args []string) {
	step := func(s string) {
		if s == at {
			if err := syscall.Kill(os.Getpid(), syscall.SIGKILL); err != nil {
				panic(err)
			}
			select {}
		}
	}
	var err error
	if args[0] == "backup" {
		_, err = Create(args[1], args[2], Options{Passphrase: passphrase, iterations: 1000, step: step})
	} else {
		_, err = Restore(args[1], args[2], RestoreOptions{Passphrase: passphrase, step: step})
	}
	fmt.Fprintln(os.Stderr, "did not die:", err)
	os.Exit(3)
}

func kill(t *testing.T, at string, args ...string) {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(exe)
	cmd.Env = append(os.Environ(), crashEnv+"="+at, crashArgs+"="+strings.Join(args, " "))
	out, err := cmd.CombinedOutput()
	st, ok := cmd.ProcessState.Sys().(syscall.WaitStatus)
	if err == nil || !ok || !st.Signaled() || st.Signal() != syscall.SIGKILL {
		t.Fatalf("the child was not killed: %v\n%s", err, out)
	}
}

// newCA is a directory as a CA has it, as far as a backup looks at it.
func newCA(t testing.TB) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "ca")
	for name, data := range map[string]string{
		"ca.pem":         string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cctest.NewCA(t).DER})),
		"ca.key":         testSecret,
		"keys/old.pem":   testSecret,
		"clients":        tokenClient + hmacClient,
		"profiles.json":  "{}",
		"operator.token": "token\n",
		"signer.hmac":    "0011\n",
		"token/ca.key":   "pkcs11:token=pki;object=ca?module-path=/usr/lib/x.so&pin-source=file:/etc/pin\n",
		"crl/full.json":  `{"number":7}`,
		"crl/full.crl":   strings.Repeat("x", maxSmall+5),
		".crl.tmp-1":     "half",
		"dual/lock":      "",
	} {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(data), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	j, err := framelog.Open(filepath.Join(dir, journalName), "journal", testMagic, quiet, func([]byte, framelog.Position) error { return nil })
	if err != nil {
		t.Fatal(err)
	}
	for i := range 3 {
		if _, err := j.Append(fmt.Appendf(nil, "record %d", i)); err != nil {
			t.Fatal(err)
		}
	}
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	l, err := oplog.OpenWith(dir, oplog.Options{Log: quiet})
	if err == nil {
		_, err = l.Record(oplog.Entry{Actor: "a", Action: "x", Outcome: oplog.Done})
	}
	if err == nil {
		err = l.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

// files are the contents of all files below dir by name, hidden ones too.
func files(t testing.TB, dir string) map[string]string {
	t.Helper()
	all := map[string]string{}
	err := filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		data, err := os.ReadFile(p)
		rel, _ := filepath.Rel(dir, p)
		all[filepath.ToSlash(rel)] = string(data)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func backup(t testing.TB, dir string, with []byte) (string, *Manifest) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "backup")
	m, err := Create(file, dir, Options{Passphrase: with, iterations: 1000})
	if err != nil {
		t.Fatal(err)
	}
	return file, m
}

func TestRestoredDirectoryIsTheOneThatWasBackedUp(t *testing.T) {
	dir := newCA(t)
	original := files(t, dir)
	for _, withKeys := range []bool{false, true} {
		var with []byte
		if withKeys {
			with = passphrase
		}
		file, m := backup(t, dir, with)
		raw, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if st, err := os.Stat(file); err != nil || st.Mode().Perm() != 0o600 {
			t.Fatalf("%v, %v", st.Mode(), err)
		}
		if text := unpacked(t, raw); strings.Contains(text, "c2VjcmV0") || strings.Contains(text, "00112233") || strings.Contains(text, "token\n") {
			t.Fatal("the backup has a key or a token in clear")
		}
		target := filepath.Join(t.TempDir(), "restored")
		got, err := Restore(file, target, RestoreOptions{Passphrase: with})
		if err != nil {
			t.Fatal(err)
		}
		if got.CAID != m.CAID || !got.Taken.Equal(m.Taken) || len(got.Files) != len(m.Files) {
			t.Fatalf("%+v, want %+v", got, m)
		}
		want := map[string]string{}
		for name, data := range original {
			switch {
			case leftOut(name), hidden(name):
			case !withKeys && (name == "ca.key" || name == "keys/old.pem"):
			case !withKeys && name == "clients":
				want[name] = tokenClient + "# signer: left out of the backup, which has no keys\n"
			default:
				want[name] = data
			}
		}
		have := files(t, target)
		if mark := have[oplog.RestoredFile]; !strings.Contains(mark, `"from":"backup"`) {
			t.Fatalf("the mark is %q", mark)
		}
		delete(have, oplog.RestoredFile)
		for name, data := range want {
			if have[name] != data {
				t.Errorf("keys %v: %s is %q", withKeys, name, have[name])
			}
			delete(have, name)
		}
		for name := range have {
			t.Errorf("keys %v: there is %s, too", withKeys, name)
		}
		if wantLeft := []string{"ca.key", "clients", "keys/old.pem"}; !withKeys && !slices.Equal(m.LeftOut, wantLeft) {
			t.Errorf("left out: %q", m.LeftOut)
		}
	}
}

// unpacked is all there is in an archive.
func unpacked(t testing.TB, data []byte) string {
	t.Helper()
	zip, err := zstd.NewReader(bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	defer zip.Close()
	all, err := io.ReadAll(zip)
	if err != nil {
		t.Fatal(err)
	}
	return string(all)
}

func TestRestoreRefuses(t *testing.T) {
	dir := newCA(t)
	with, _ := backup(t, dir, passphrase)
	without, _ := backup(t, dir, nil)
	full := t.TempDir()
	if err := os.WriteFile(filepath.Join(full, "journal"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		file, dir string
		pass      []byte
		word      string
	}{
		"a directory with a CA":    {with, full, nil, "never writes over a CA"},
		"a wrong passphrase":       {with, "", []byte("wrong"), "wrong passphrase"},
		"keys that it lacks":       {without, "", passphrase, "without --with-key"},
		"what is no backup":        {filepath.Join(dir, "profiles.json"), "", nil, "not a backup"},
		"a file that is not there": {filepath.Join(dir, "nothing"), "", nil, "no such file"},
	} {
		target := c.dir
		if target == "" {
			target = filepath.Join(t.TempDir(), "x")
		}
		if _, err := Restore(c.file, target, RestoreOptions{Passphrase: c.pass}); err == nil || !strings.Contains(err.Error(), c.word) {
			t.Errorf("%s: %v", name, err)
		}
		if c.dir == "" {
			if left, err := os.ReadDir(filepath.Dir(target)); err != nil || len(left) != 0 {
				t.Errorf("%s: left %v, %v", name, left, err)
			}
		}
	}
}

// Every byte counts: a backup that was cut or changed anywhere is none.
func TestChangedBackupIsRefused(t *testing.T) {
	file, _ := backup(t, newCA(t), passphrase)
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	discard := func(_ string, _ fs.FileMode, _ int64, from io.Reader) error {
		_, err := io.Copy(io.Discard, from)
		return err
	}
	for n := 0; n < len(data); n += 97 {
		if _, _, err := Read(bytes.NewReader(data[:n]), discard); !errors.Is(err, ErrFormat) {
			t.Fatalf("cut after %d of %d bytes: %v", n, len(data), err)
		}
	}
	// Inside: as somebody does who can compress it again.
	text := []byte(unpacked(t, data))
	for _, c := range [][2]string{{"record 1", "record 9"}, {`"number":7`, `"number":6`}, {"profiles.json", "pr0files.json"}} {
		changed := bytes.Replace(text, []byte(c[0]), []byte(c[1]), 1)
		if bytes.Equal(changed, text) {
			t.Fatalf("%q is not in it", c[0])
		}
		if _, _, err := Read(bytes.NewReader(packed(t, changed)), discard); !errors.Is(err, ErrFormat) {
			t.Fatalf("%q: %v", c[0], err)
		}
	}
}

func packed(t testing.TB, data []byte) []byte {
	t.Helper()
	zip, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	return zip.EncodeAll(data, nil)
}

// forged is an archive with a manifest that agrees with it.
func forged(t testing.TB, headers ...tar.Header) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	m := Manifest{Format: format, Version: version, CAID: strings.Repeat("0", 64), Keys: KeysNone, Files: []File{}}
	for _, h := range headers {
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		m.Files = append(m.Files, File{Name: h.Name, Mode: fs.FileMode(h.Mode).Perm(), SHA256: fmt.Sprintf("%x", sha256.Sum256(nil))})
	}
	data, err := json.Marshal(&m)
	if err == nil {
		err = w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: manifestName, Size: int64(len(data)), Mode: 0o600})
	}
	if err == nil {
		_, err = w.Write(data)
	}
	if err == nil {
		err = w.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
	return packed(t, b.Bytes())
}

// No name leads out of the directory, and nothing but files is made.
func TestHostileArchiveStaysInItsDirectory(t *testing.T) {
	for _, h := range []tar.Header{
		{Typeflag: tar.TypeReg, Name: "../evil"}, {Typeflag: tar.TypeReg, Name: "/etc/evil"}, {Typeflag: tar.TypeReg, Name: "a/../../evil"}, {Typeflag: tar.TypeReg, Name: ".hidden"},
		{Typeflag: tar.TypeReg, Name: "a/.b/c"}, {Typeflag: tar.TypeReg, Name: `a\b`}, {Typeflag: tar.TypeReg, Name: "a/b/c/d/e/f"}, {Typeflag: tar.TypeReg, Name: strings.Repeat("x", 600)},
		{Typeflag: tar.TypeSymlink, Name: "link", Linkname: "/etc/passwd"}, {Typeflag: tar.TypeLink, Name: "link", Linkname: "/etc/passwd"}, {Typeflag: tar.TypeDir, Name: "dir"},
		{Typeflag: tar.TypeFifo, Name: "fifo"}, {Typeflag: tar.TypeReg, Name: "."},
	} {
		file := filepath.Join(t.TempDir(), "backup")
		if err := os.WriteFile(file, forged(t, h), 0o600); err != nil {
			t.Fatal(err)
		}
		parent := t.TempDir()
		if _, err := Restore(file, filepath.Join(parent, "ca"), RestoreOptions{}); !errors.Is(err, ErrFormat) {
			t.Errorf("%q: %v", h.Name, err)
		}
		if left, err := os.ReadDir(parent); err != nil || len(left) != 0 {
			t.Errorf("%q: left %v, %v", h.Name, left, err)
		}
	}
	twice := tar.Header{Typeflag: tar.TypeReg, Name: "a"}
	file := filepath.Join(t.TempDir(), "backup")
	if err := os.WriteFile(file, forged(t, twice, twice), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Restore(file, filepath.Join(t.TempDir(), "ca"), RestoreOptions{}); err == nil {
		t.Error("a file was written twice")
	}
}

// A process that is killed leaves no file and no directory that could be taken for a whole one, and nothing in the way of the next.
func TestKilledAtEveryStep(t *testing.T) {
	dir := newCA(t)
	whole, _ := backup(t, dir, passphrase)
	for _, at := range []string{stepBegun, stepFile, stepKeys, stepFiles, stepDone} {
		t.Run("backup "+at, func(t *testing.T) {
			t.Parallel()
			file := filepath.Join(t.TempDir(), "backup")
			kill(t, at, "backup", file, dir)
			_, err := os.Stat(file)
			if there := err == nil; there != (at == stepDone) {
				t.Fatalf("there is a file: %v", there)
			}
			if at != stepDone {
				if _, err := Create(file, dir, Options{}); err != nil {
					t.Fatal(err)
				}
			}
			if _, err := Restore(file, filepath.Join(t.TempDir(), "ca"), RestoreOptions{}); err != nil {
				t.Fatal(err)
			}
		})
		t.Run("restore "+at, func(t *testing.T) {
			t.Parallel()
			parent := t.TempDir()
			target := filepath.Join(parent, "ca")
			kill(t, at, "restore", whole, target)
			_, err := os.Stat(target)
			if there := err == nil; there != (at == stepDone) {
				t.Fatalf("there is a directory: %v", there)
			}
			if at != stepDone {
				if _, err := Restore(whole, target, RestoreOptions{Passphrase: passphrase}); err != nil {
					t.Fatal(err)
				}
			}
			if left, err := os.ReadDir(parent); err != nil || len(left) != 1 {
				t.Fatalf("left: %v, %v", left, err)
			}
			if got := files(t, target); got["ca.key"] != testSecret || got["profiles.json"] != "{}" || got[oplog.RestoredFile] == "" {
				t.Fatalf("%q", got)
			}
		})
	}
}

// While the CA writes, a backup has whole records, and of each effect the record that came before it.
func TestBackupWhileTheCAWrites(t *testing.T) {
	dir := newCA(t)
	j, err := framelog.Open(filepath.Join(dir, journalName), "journal", testMagic, quiet, func([]byte, framelog.Position) error { return nil })
	if err != nil {
		t.Fatal(err)
	}
	l, err := oplog.OpenWith(dir, oplog.Options{Log: quiet})
	if err != nil {
		t.Fatal(err)
	}
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				seq, err := l.Record(oplog.Entry{Actor: "a", Action: "issue"})
				if err == nil {
					_, err = j.Append(fmt.Appendf(nil, "of %d", seq))
				}
				if err == nil {
					err = l.End(seq, oplog.Done, "", nil)
				}
				if err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	for range 5 {
		file, _ := backup(t, dir, nil)
		target := filepath.Join(t.TempDir(), "ca")
		if _, err := Restore(file, target, RestoreOptions{}); err != nil {
			t.Fatal(err)
		}
		back, err := oplog.OpenWith(target, oplog.Options{Log: quiet})
		if err != nil {
			t.Fatal(err)
		}
		size := back.Size()
		if err := back.Close(); err != nil {
			t.Fatal(err)
		}
		f, err := os.Open(filepath.Join(target, journalName))
		if err != nil {
			t.Fatal(err)
		}
		st, err := f.Stat()
		if err != nil {
			t.Fatal(err)
		}
		end, err := testMagic.Scan(f, st.Size(), func(r []byte, _ framelog.Position) error {
			var of uint64
			if n, _ := fmt.Sscanf(string(r), "of %d", &of); n == 1 && of >= size {
				return fmt.Errorf("the effect of record %d is there, and only %d records", of, size)
			}
			return nil
		})
		if err != nil || end != st.Size() {
			t.Fatalf("%d of %d bytes are whole: %v", end, st.Size(), err)
		}
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
	}
	close(stop)
	wg.Wait()
	if err := errors.Join(j.Close(), l.Close()); err != nil {
		t.Fatal(err)
	}
}

// Keys of clients in profiles are keys; what names a variable or a file is none. Nothing else of the text changes.
func TestKeysInProfilesAreKeys(t *testing.T) {
	const secret, other = "00112233445566778899aabbccddeeff", `\u0030011223344556677"\\8899aabbccddeeff`
	const profiles = `{ "Auth_Keys": {"a": {"type":"standard", "key" : "` + secret + `"}, "b": {"KEY":"` + other + `","key":"env:X"},
		"c": {"key":"file:/etc/key"}}, "auth_keys": {"d": {"key": "` + secret + `"}}, "signing": {"profiles": {"x": {"key": "kept", "n": [1.50, {}]}}} }` + "\n"
	escaped := strings.Replace(profiles, `7"\\8`, `7\"\\8`, 1)
	dir := newCA(t)
	for name, text := range map[string]string{"profiles.json": escaped, "profiles.json.old": escaped, "dual/operations/1.payload": escaped, "dual/operations/2.payload": "0a\n0b\n"} {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want := strings.ReplaceAll(escaped, secret, LeftOutKey)
	want = strings.Replace(want, strings.Replace(other, `7"`, `7\"`, 1), LeftOutKey, 1)
	for _, with := range [][]byte{nil, passphrase} {
		file, m := backup(t, dir, with)
		raw, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if text := unpacked(t, raw); strings.Contains(text, secret) || strings.Contains(text, "8899aabb") {
			t.Fatal("the backup has a key in clear")
		}
		if got := strings.Join(m.AuthKeys, " "); got != "auth_keys.a auth_keys.b auth_keys.d" {
			t.Errorf("keys %q", got)
		}
		if left := strings.Join(m.LeftOut, " "); with == nil && left != "ca.key clients dual/operations/1.payload keys/old.pem profiles.json profiles.json.old" {
			t.Errorf("left out: %q", left)
		}
		target := filepath.Join(t.TempDir(), "ca")
		if _, err := Restore(file, target, RestoreOptions{}); err != nil {
			t.Fatal(err)
		}
		got := files(t, target)
		if _, there := got["dual/operations/1.payload"]; there || got["profiles.json"] != want || got["profiles.json.old"] != want || got["dual/operations/2.payload"] != "0a\n0b\n" {
			t.Errorf("%q", got)
		}
		if missing := strings.Join(MissingKeys([]byte(got["profiles.json"])), " "); missing != "auth_keys.a auth_keys.b auth_keys.d" {
			t.Errorf("missing %q", missing)
		}
		if with == nil {
			continue
		}
		target = filepath.Join(t.TempDir(), "ca")
		if _, err := Restore(file, target, RestoreOptions{Passphrase: with}); err != nil {
			t.Fatal(err)
		}
		if got := files(t, target); got["profiles.json"] != escaped || got["dual/operations/1.payload"] != escaped || MissingKeys([]byte(got["profiles.json"])) != nil {
			t.Errorf("%q", got)
		}
	}
}

// FuzzInlineKeys: whatever encoding/json takes for a key, this finds, too.
func FuzzInlineKeys(f *testing.F) {
	for _, s := range []string{`{"auth_keys":{"a":{"key":"00"}}}`, `{"AUTH_KEYS":{"a":{"Key":"\u0030\"x\\"}},"auth_keys":{"b":{"key":"env:X"}}}`, `{"auth_keys":[{"key":"1"}]}`, `{"auth_keys":{"a":{"key":{"key":"1"}}}}`, `{`, `[]`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		public, _ := publicProfiles(profilesName, text)
		if public == nil {
			return
		}
		var doc struct {
			AuthKeys map[string]struct {
				Key string `json:"key"`
			} `json:"auth_keys"`
		}
		if json.Unmarshal(public, &doc) != nil && json.Valid(text) && !json.Valid(public) {
			t.Fatalf("%q became %q", text, public)
		}
		for name, k := range doc.AuthKeys {
			if k.Key != "" && k.Key != LeftOutKey && !strings.HasPrefix(k.Key, "env:") && !strings.HasPrefix(k.Key, "file:") {
				t.Fatalf("%q: the key %s is left in %q", text, name, public)
			}
		}
	})
}

// What a running CA has sent becomes a file with the keys of its directory, and only if all of it has arrived.
func TestCopyOfASentBackup(t *testing.T) {
	dir := newCA(t)
	var sent bytes.Buffer
	if _, err := Write(&sent, dir, Options{}); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "backup")
	if err := CreateFile(file, func(w io.Writer) error {
		_, err := Copy(w, bytes.NewReader(sent.Bytes()[:sent.Len()-9]), dir, Options{})
		return err
	}); !errors.Is(err, ErrFormat) {
		t.Fatalf("cut off: %v", err)
	}
	if err := CreateFile(file, func(w io.Writer) error {
		_, err := Copy(w, bytes.NewReader(sent.Bytes()), dir, Options{Passphrase: passphrase, iterations: 1000})
		return err
	}); err != nil {
		t.Fatal(err)
	}
	target := filepath.Join(t.TempDir(), "ca")
	if _, err := Restore(file, target, RestoreOptions{Passphrase: passphrase}); err != nil {
		t.Fatal(err)
	}
	if got := files(t, target); got["ca.key"] != testSecret || got["clients"] != tokenClient+hmacClient {
		t.Fatalf("%q", got)
	}
	if err := CreateFile(filepath.Join(t.TempDir(), "x"), func(w io.Writer) error {
		_, err := Copy(w, bytes.NewReader(sent.Bytes()), newCA(t), Options{Passphrase: passphrase, iterations: 1000})
		return err
	}); err == nil || !strings.Contains(err.Error(), "the backup is of") {
		t.Fatalf("the keys of another CA: %v", err)
	}
}

func TestDamagedJournalIsNotBackedUp(t *testing.T) {
	dir := newCA(t)
	path := filepath.Join(dir, journalName)
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	data[framelog.HeaderBytes+5] ^= 1
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Create(filepath.Join(t.TempDir(), "backup"), dir, Options{}); !errors.Is(err, framelog.ErrDamaged) {
		t.Fatalf("got %v", err)
	}
}

func FuzzRead(f *testing.F) {
	file, _ := backup(f, newCA(f), passphrase)
	data, err := os.ReadFile(file)
	if err != nil {
		f.Fatal(err)
	}
	f.Add([]byte(unpacked(f, data)))
	f.Add([]byte(unpacked(f, forged(f, tar.Header{Typeflag: tar.TypeReg, Name: "a"}))))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, data []byte) {
		got := map[string]int64{}
		m, keys, err := Read(bytes.NewReader(packed(t, data)), func(name string, _ fs.FileMode, _ int64, from io.Reader) error {
			n, err := io.Copy(io.Discard, from)
			got[name] = n
			return err
		})
		if err != nil {
			return
		}
		for _, file := range m.Files {
			if n, ok := got[file.Name]; file.Name != keysName && (!ok || n != file.Size) {
				t.Fatalf("%s has %d bytes, the manifest says %d", file.Name, n, file.Size)
			}
		}
		if keys != nil {
			if _, err := unwrap(keys, m.CAID, []byte("x")); err == nil {
				t.Fatal("any passphrase opens the keys")
			}
		}
	})
}
