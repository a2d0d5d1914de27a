// Package cabackup writes the directory of a CA into one file, and makes a directory of it again. docs/backup.md says what is in it and what
// a restored CA does.
//
// The file is a tar archive, compressed with zstd: the files of the directory in the order in which they were read, then "keys.enc" if keys
// were asked for, then "manifest.json" with the size and SHA-256 of each. What has no manifest at its end is not a backup.
//
// The CA may be running. Its append-only files, the journal and the operators' log, are copied up to the last complete write; all others
// are replaced as a whole by whoever changes them. The journal is read first and the operators' log last, so that a backup has the record
// of every action of which it has the effect.
package cabackup
