// Program certificates makes a certificate authority, certificates that it signs, and bare signing keys, as a JSON
// document on standard input asks. It exists so that bringing up a cluster needs neither openssl nor a Python package.
//
// Keys are ECDSA P-256; keys are written with mode 0600; everything is valid for a year.
package main

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"time"
)

const validity = 365 * 24 * time.Hour

type request struct {
	Authority    string   `json:"authority"`    // file name, without suffix, and common name
	Certificates []leaf   `json:"certificates"` // signed by the authority, for clients and servers alike
	Keys         []string `json:"keys"`         // NAME.key (PKCS #8) and NAME.pub (PKIX)
}

type leaf struct {
	Name          string   `json:"name"`
	CommonName    string   `json:"commonName"`
	Organizations []string `json:"organizations"`
	Hosts         []string `json:"hosts"` // names and addresses
}

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: certificates DIRECTORY < request.json")
		os.Exit(2)
	}
	if err := run(os.Args[1]); err != nil {
		fmt.Fprintln(os.Stderr, "certificates:", err)
		os.Exit(1)
	}
}

func run(directory string) error {
	var asked request
	decoder := json.NewDecoder(os.Stdin)
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&asked); err != nil {
		return fmt.Errorf("the request on standard input cannot be read: %w", err)
	}
	authority, authorityKey, err := makeAuthority(directory, asked.Authority)
	if err != nil {
		return err
	}
	for _, wanted := range asked.Certificates {
		if err := makeLeaf(directory, wanted, authority, authorityKey); err != nil {
			return err
		}
	}
	for _, name := range asked.Keys {
		key, err := makeKey(directory, name)
		if err != nil {
			return err
		}
		public, err := x509.MarshalPKIXPublicKey(key.Public())
		if err != nil {
			return err
		}
		if err := writePEM(filepath.Join(directory, name+".pub"), "PUBLIC KEY", public, 0o644); err != nil {
			return err
		}
	}
	return nil
}

func makeAuthority(directory, name string) (*x509.Certificate, crypto.Signer, error) {
	template := newTemplate(pkix.Name{CommonName: name})
	template.IsCA = true
	template.KeyUsage = x509.KeyUsageCertSign | x509.KeyUsageCRLSign | x509.KeyUsageDigitalSignature
	key, err := makeKey(directory, name)
	if err != nil {
		return nil, nil, err
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, nil, err
	}
	certificate, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, nil, err
	}
	return certificate, key, writePEM(filepath.Join(directory, name+".crt"), "CERTIFICATE", der, 0o644)
}

func makeLeaf(directory string, wanted leaf, authority *x509.Certificate, authorityKey crypto.Signer) error {
	template := newTemplate(pkix.Name{CommonName: wanted.CommonName, Organization: wanted.Organizations})
	template.KeyUsage = x509.KeyUsageDigitalSignature
	template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth}
	for _, host := range wanted.Hosts {
		if address := net.ParseIP(host); address != nil {
			template.IPAddresses = append(template.IPAddresses, address)
		} else {
			template.DNSNames = append(template.DNSNames, host)
		}
	}
	key, err := makeKey(directory, wanted.Name)
	if err != nil {
		return err
	}
	der, err := x509.CreateCertificate(rand.Reader, template, authority, key.Public(), authorityKey)
	if err != nil {
		return err
	}
	return writePEM(filepath.Join(directory, wanted.Name+".crt"), "CERTIFICATE", der, 0o644)
}

func newTemplate(subject pkix.Name) *x509.Certificate {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		panic(err) // the system has no randomness: nothing sensible is left to do
	}
	now := time.Now()
	return &x509.Certificate{
		SerialNumber:          serial,
		Subject:               subject,
		NotBefore:             now.Add(-5 * time.Minute), // clocks of containers may lag
		NotAfter:              now.Add(validity),
		BasicConstraintsValid: true,
	}
}

func makeKey(directory, name string) (*ecdsa.PrivateKey, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	return key, writePEM(filepath.Join(directory, name+".key"), "PRIVATE KEY", der, 0o600)
}

func writePEM(path, kind string, der []byte, mode os.FileMode) error {
	return os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), mode)
}
