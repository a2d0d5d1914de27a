// Package tiles serves a log as the static files of C2SP tlog-tiles, and an issuance log as those of C2SP static-ct-api.
//
//	checkpoint                    the head, a signed note
//	tile/<L>/<N>[.p/<W>]          hashes of level 8*L
//	tile/entries/<N>[.p/<W>]      tlog-tiles: entries, each after its length
//	tile/data/<N>[.p/<W>]         static-ct-api: entries with their chains
//	issuer/<SHA-256>              static-ct-api: a certificate that chains name
//
// There are no files: tiles are cut from the log when they are asked for, and full ones of entries may be kept in a Cache. A partial
// tile is served as long as the log is at least that long, so whoever holds an old checkpoint finds its tiles.
package tiles
