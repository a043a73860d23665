package pki

import (
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"srsx/cluster/durable"
)

// Write puts the certificate and its key into two new PEM files, both or none.
// The key is for its owner only. A file that is there already is not replaced:
// somebody else may use it.
func (i Issued) Write(certFile, keyFile string) error {
	secret, err := x509.MarshalPKCS8PrivateKey(i.Key)
	if err != nil {
		return err
	}
	if err := create(keyFile, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: secret}), 0o600); err != nil {
		return err
	}
	if err := create(certFile, certificatePEM(i.Cert), 0o644); err != nil {
		return errors.Join(err, os.Remove(keyFile)) // ours: it was not there before
	}
	return nil
}

func create(file string, data []byte, mode fs.FileMode) error {
	err := durable.CreateFile(file, data, mode)
	if errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("%s is there already and is not replaced", file)
	}
	return err
}
