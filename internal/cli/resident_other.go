//go:build !unix

package cli

// maxResident is the most memory that this process has had in use, in octets; 0: not known.
func maxResident() int64 { return 0 }
