//go:build race

package ca

const raced = true
