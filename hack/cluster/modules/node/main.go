// Program kubenode is a node's programs in one binary, chosen by the first argument: kubelet, kube-proxy and
// kube-scheduler (which a control plane that no node joins does not need).
package main

import (
	"context"
	"fmt"
	"os"

	"github.com/spf13/cobra"
	"k8s.io/component-base/cli"
	_ "k8s.io/component-base/metrics/prometheus/clientgo" // client metrics, as the official programs have them
	_ "k8s.io/component-base/metrics/prometheus/version"
	proxy "k8s.io/kubernetes/cmd/kube-proxy/app"
	scheduler "k8s.io/kubernetes/cmd/kube-scheduler/app"
	kubelet "k8s.io/kubernetes/cmd/kubelet/app"
)

var commands = map[string]func() *cobra.Command{
	"kube-proxy":     proxy.NewProxyCommand,
	"kube-scheduler": func() *cobra.Command { return scheduler.NewSchedulerCommand() },
	"kubelet":        func() *cobra.Command { return kubelet.NewKubeletCommand(context.Background()) },
}

func main() {
	if len(os.Args) < 2 {
		fmt.Fprintln(os.Stderr, "usage: kubenode kubelet|kube-proxy|kube-scheduler [arguments]")
		os.Exit(2)
	}
	os.Args = os.Args[1:]
	newCommand, known := commands[os.Args[0]]
	if !known {
		fmt.Fprintf(os.Stderr, "kubenode: no program %q; it has kubelet, kube-proxy, kube-scheduler\n", os.Args[0])
		os.Exit(2)
	}
	os.Exit(cli.Run(newCommand()))
}
