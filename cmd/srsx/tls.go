package main

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"srsx/cluster/pki"
	clusterport "srsx/cluster/port"
)

const (
	caFile    = "srsx-ca.pem"
	caKeyFile = "srsx-ca-key.pem"
	anyNode   = "*"

	caDays   = 5 * 365
	certDays = 365
	maxDays  = 100 * 365
)

// tlsCommand makes and shows certificates. It asks no peer.
func tlsCommand(p process) *cli.Command {
	days := func(standard int) cli.Flag {
		return &cli.IntFlag{Name: "days", Value: standard, Usage: "from today until it ends"}
	}
	out := &cli.StringFlag{Name: "out", Value: ".", Usage: "folder for the two files"}
	return &cli.Command{Name: "tls", Usage: "make certificates for mutual TLS on the cluster port", Subcommands: []*cli.Command{
		{Name: "ca", Usage: "the CA of a cluster", Subcommands: []*cli.Command{{
			Name: "create", Usage: "make a CA: " + caFile + " for every peer, " + caKeyFile + " for nobody but you",
			Flags: []cli.Flag{
				&cli.StringFlag{Name: "name", Value: "srsx CA", Usage: "to tell it from another one"}, days(caDays), out,
			},
			Action: local(func(c *cli.Context) error { return createCA(c, p) }),
		}}},
		{Name: "cert", Usage: "the certificates of peers", Subcommands: []*cli.Command{{
			Name: "create", Usage: "make the certificate of a peer: NODE.pem and NODE-key.pem",
			Flags: []cli.Flag{
				&cli.StringFlag{Name: "ca", Value: caFile, Usage: "certificate of the CA"},
				&cli.StringFlag{Name: "key", Value: caKeyFile, Usage: "its key"},
				&cli.StringFlag{Name: "node", Usage: "-node of the peer; '*': any whose name has no dot"},
				&cli.StringFlag{Name: "cluster", Value: "srsx", Usage: "its -cluster-name"},
				&cli.StringSliceFlag{Name: "san", Usage: "one more DNS name below .srsx, such as that of a second NODE.CLUSTER.srsx"},
				days(certDays), out,
			},
			Action: local(func(c *cli.Context) error { return createCertificate(c, p) }),
		}}},
		{
			Name: "inspect", Usage: "say what certificates a file holds", ArgsUsage: "FILE",
			Action: func(c *cli.Context) error { return inspectCertificates(c, p) },
		},
	}}
}

// local checks what both create commands have in common.
func local(do cli.ActionFunc) cli.ActionFunc {
	return func(c *cli.Context) error {
		if err := noArguments(c); err != nil {
			return err
		}
		if n := c.Int("days"); n < 1 || n > maxDays {
			return usageError{fmt.Sprintf("-days %d is not a number from 1 to %d", n, maxDays)}
		}
		return do(c)
	}
}

func createCA(c *cli.Context, p process) error {
	name := c.String("name")
	if strings.TrimSpace(name) == "" {
		return usageError{"-name is empty"}
	}
	issued, err := pki.NewCA(name, time.Now(), c.Int("days"))
	if err != nil {
		return err
	}
	return keep(c, p, issued, caFile, caKeyFile, "CA "+name)
}

func createCertificate(c *cli.Context, p process) error {
	node, cluster := c.String("node"), c.String("cluster")
	switch {
	case node == "":
		return usageError{"tls cert create needs -node NODE"}
	case node != anyNode && checkNode(node) != nil:
		return usageError{"-node: " + checkNode(node).Error()}
	case cluster == "" || checkNode(cluster) != nil:
		return usageError{fmt.Sprintf("-cluster: %q is not a name of letters, digits, dot, dash and underscore", cluster)}
	}
	ca, err := pki.ReadCA(c.String("ca"), c.String("key"))
	if err != nil {
		return err
	}
	names := append([]string{clusterport.CertificateName(node, cluster)}, c.StringSlice("san")...)
	issued, err := ca.Issue(names, time.Now(), c.Int("days"))
	if err != nil {
		return err
	}
	file := node
	if node == anyNode {
		file = "any"
	}
	return keep(c, p, issued, file+".pem", file+"-key.pem", strings.Join(names, " "))
}

// keep writes what was made, and says so.
func keep(c *cli.Context, p process, issued pki.Issued, certFile, keyFile, what string) error {
	folder := c.String("out")
	if info, err := os.Stat(folder); err != nil || !info.IsDir() {
		return fmt.Errorf("-out: %q is not a folder", folder)
	}
	certFile, keyFile = filepath.Join(folder, certFile), filepath.Join(folder, keyFile)
	if err := issued.Write(certFile, keyFile); err != nil {
		return err
	}
	_, err := fmt.Fprintf(p.stdout, "wrote %s and %s: %s until %s\n", certFile, keyFile, what, issued.Cert.NotAfter.UTC().Format(time.DateOnly))
	return err
}

func inspectCertificates(c *cli.Context, p process) error {
	if c.NArg() != 1 {
		return usageError{"tls inspect needs FILE"}
	}
	certs, err := pki.ReadCertificates(c.Args().First())
	if err != nil {
		return err
	}
	var rows []map[string]any
	for _, cert := range certs {
		sum := sha256.Sum256(cert.Raw)
		kind, names := "peer", strings.Join(cert.DNSNames, " ")
		if cert.IsCA {
			kind, names = "CA", cert.Subject.CommonName
		}
		rows = append(rows, map[string]any{
			"kind": kind, "name": names, "issuer": cert.Issuer.CommonName,
			"from": cert.NotBefore.UTC().Format(time.DateOnly), "until": cert.NotAfter.UTC().Format(time.DateOnly),
			"sha256": hex.EncodeToString(sum[:])[:16],
		})
	}
	printTable(p.stdout, columns{"kind", "name", "issuer", "from", "until", "sha256"}, rows)
	return nil
}
