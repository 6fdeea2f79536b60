// Program kubelite is a control plane's programs in one binary, chosen by the first argument: etcd, kube-apiserver,
// kube-controller-manager and kubectl. One binary, because the four share most of their code: linking them apart
// would cost four times the disk and most of the time.
package main

import (
	"fmt"
	"os"

	"github.com/spf13/cobra"
	"go.etcd.io/etcd/server/v3/etcdmain"
	"k8s.io/component-base/cli"
	_ "k8s.io/component-base/metrics/prometheus/clientgo" // client metrics, as the official programs have them
	_ "k8s.io/component-base/metrics/prometheus/version"
	kubectl "k8s.io/kubectl/pkg/cmd"
	apiserver "k8s.io/kubernetes/cmd/kube-apiserver/app"
	controllers "k8s.io/kubernetes/cmd/kube-controller-manager/app"
)

var commands = map[string]func() *cobra.Command{
	"kube-apiserver":          apiserver.NewAPIServerCommand,
	"kube-controller-manager": controllers.NewControllerManagerCommand,
	"kubectl":                 kubectl.NewDefaultKubectlCommand,
}

func main() {
	if len(os.Args) < 2 {
		fmt.Fprintln(os.Stderr, "usage: kubelite etcd|kube-apiserver|kube-controller-manager|kubectl [arguments]")
		os.Exit(2)
	}
	os.Args = os.Args[1:]
	if os.Args[0] == "etcd" {
		etcdmain.Main(os.Args)
		return
	}
	newCommand, known := commands[os.Args[0]]
	if !known {
		fmt.Fprintf(os.Stderr, "kubelite: no program %q; it has etcd, kube-apiserver, kube-controller-manager, kubectl\n", os.Args[0])
		os.Exit(2)
	}
	os.Exit(cli.Run(newCommand()))
}
