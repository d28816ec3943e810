// Judges trees, proofs, checkpoints and tiles of the library with Go's checksum database packages, and writes cases of its own.
//
// usage: go run sumdb.go OURS THEIRS
package main

import (
	"bufio"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"os"
	"strings"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

// kase is one line of a file; logline-log/tests/foreign.rs says what its members mean.
type kase struct {
	Kind    string            `json:"kind"`
	Index   int64             `json:"index"`
	Old     int64             `json:"old"`
	Size    int64             `json:"size"`
	Leaf    *tlog.Hash        `json:"leaf,omitempty"`
	OldRoot *tlog.Hash        `json:"old_root,omitempty"`
	Root    *tlog.Hash        `json:"root,omitempty"`
	Proof   []tlog.Hash       `json:"proof"`
	Text    string            `json:"text,omitempty"`
	Key     string            `json:"key,omitempty"`
	Files   map[string]string `json:"files,omitempty"`
	Valid   bool              `json:"valid"`
}

func must(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "sumdb.go:", err)
		os.Exit(1)
	}
}

func leaf(n int64) []byte { return []byte(fmt.Sprintf("entry %d", n)) }

// files reads tiles out of a case. Its names are those of C2SP: without the height.
type files map[string]string

func (f files) Height() int { return 8 }

func (f files) ReadTiles(tiles []tlog.Tile) ([][]byte, error) {
	var read [][]byte
	for _, tile := range tiles {
		name := strings.Replace(tile.Path(), "tile/8/", "tile/", 1)
		data, ok := f[name]
		if !ok {
			return nil, fmt.Errorf("%s is missing", name)
		}
		bytes, err := base64.StdEncoding.DecodeString(data)
		if err != nil {
			return nil, err
		}
		read = append(read, bytes)
	}
	return read, nil
}

func (f files) SaveTiles([]tlog.Tile, [][]byte) {}

func judge(c kase) error {
	switch c.Kind {
	case "inclusion":
		return tlog.CheckRecord(c.Proof, c.Size, *c.Root, c.Index, *c.Leaf)
	case "consistency":
		return tlog.CheckTree(c.Proof, c.Size, *c.Root, c.Old, *c.OldRoot)
	case "note":
		verifier, err := note.NewVerifier(c.Key)
		must(err)
		_, err = note.Open([]byte(c.Text), note.VerifierList(verifier))
		return err
	case "tiles":
		reader := tlog.TileHashReader(tlog.Tree{N: c.Size, Hash: *c.Root}, files(c.Files))
		for n := int64(0); n < c.Size; n += 7 {
			proof, err := tlog.ProveRecord(c.Size, n, reader)
			if err != nil {
				return err
			}
			if err := tlog.CheckRecord(proof, c.Size, *c.Root, n, tlog.RecordHash(leaf(n))); err != nil {
				return err
			}
		}
		return nil
	}
	return fmt.Errorf("a kind of case that nobody knows: %s", c.Kind)
}

func main() {
	ours, err := os.Open(os.Args[1])
	must(err)
	lines, counts := bufio.NewScanner(ours), map[bool]int{}
	lines.Buffer(nil, 1<<24)
	for lines.Scan() {
		var c kase
		must(json.Unmarshal(lines.Bytes(), &c))
		if err := judge(c); (err == nil) != c.Valid {
			must(fmt.Errorf("valid is %v, and Go says %v: %s", c.Valid, err, lines.Text()))
		}
		counts[c.Valid]++
	}
	must(lines.Err())
	if counts[true] < 100 || counts[false] < 100 {
		must(fmt.Errorf("too few cases: %v", counts))
	}
	fmt.Printf("Go's sumdb agrees: %d cases are valid, %d are not\n", counts[true], counts[false])

	theirs, err := os.Create(os.Args[2])
	must(err)
	out := json.NewEncoder(theirs)
	out.SetEscapeHTML(false)
	var hashes []tlog.Hash
	reader := tlog.HashReaderFunc(func(indexes []int64) ([]tlog.Hash, error) {
		var found []tlog.Hash
		for _, index := range indexes {
			found = append(found, hashes[index])
		}
		return found, nil
	})
	const leaves = 600
	roots := []tlog.Hash{{}}
	for n := int64(0); n < leaves; n++ {
		more, err := tlog.StoredHashes(n, leaf(n), reader)
		must(err)
		hashes = append(hashes, more...)
		root, err := tlog.TreeHash(n+1, reader)
		must(err)
		roots = append(roots, root)
	}
	other := tlog.RecordHash([]byte("another"))
	for _, size := range []int64{1, 2, 3, 5, 8, 13, 100, 255, 256, 257, 600} {
		for _, index := range []int64{0, size / 3, size - 1} {
			proof, err := tlog.ProveRecord(size, index, reader)
			must(err)
			hash := tlog.RecordHash(leaf(index))
			must(out.Encode(kase{Kind: "inclusion", Index: index, Size: size, Leaf: &hash, Root: &roots[size], Proof: proof, Valid: true}))
			must(out.Encode(kase{Kind: "inclusion", Index: index, Size: size, Leaf: &other, Root: &roots[size], Proof: proof}))
		}
		for _, old := range []int64{1, (size + 1) / 2, size} {
			proof, err := tlog.ProveTree(size, old, reader)
			must(err)
			must(out.Encode(kase{Kind: "consistency", Old: old, OldRoot: &roots[old], Size: size, Root: &roots[size], Proof: proof, Valid: true}))
			must(out.Encode(kase{Kind: "consistency", Old: old, OldRoot: &other, Size: size, Root: &roots[size], Proof: proof}))
		}
		tiles := map[string]string{}
		for _, tile := range tlog.NewTiles(8, 0, size) {
			data, err := tlog.ReadTileData(tile, reader)
			must(err)
			tiles[strings.Replace(tile.Path(), "tile/8/", "tile/", 1)] = base64.StdEncoding.EncodeToString(data)
		}
		must(out.Encode(kase{Kind: "tiles", Size: size, Root: &roots[size], Files: tiles, Valid: true}))
		secret, key, err := note.GenerateKey(rand.Reader, "go.example/log")
		must(err)
		signer, err := note.NewSigner(secret)
		must(err)
		root, err := roots[size].MarshalJSON()
		must(err)
		text := fmt.Sprintf("go.example/log\n%d\n%s\n", size, strings.Trim(string(root), `"`))
		signed, err := note.Sign(&note.Note{Text: text}, signer)
		must(err)
		must(out.Encode(kase{Kind: "note", Text: string(signed), Key: key, Valid: true}))
		changed := strings.Replace(string(signed), fmt.Sprintf("\n%d\n", size), fmt.Sprintf("\n%d\n", size+1), 1)
		must(out.Encode(kase{Kind: "note", Text: changed, Key: key}))
	}
	must(theirs.Close())
}
