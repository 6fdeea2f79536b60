{{- define "culvert.image" -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end }}

{{/* labels of one component: dict "root" $ "component" "relay" */}}
{{- define "culvert.labels" -}}
{{ include "culvert.selector" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version }}
{{- end }}

{{- define "culvert.selector" -}}
app.kubernetes.io/name: culvert-{{ .component }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
app.kubernetes.io/part-of: culvert
{{- end }}

{{/* what Pod Security "restricted" asks of a Pod, and of a container */}}
{{- define "culvert.podSecurity" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
fsGroup: 65532
seccompProfile: {type: RuntimeDefault}
{{- end }}
{{- define "culvert.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end }}

{{/* the flags that say which objects are this operator's, for the operator and for what lets go of them */}}
{{- define "culvert.realm" -}}
{{- with .Values.operator.tunnelNamespaces }}
- --tunnel-namespaces={{ join "," . }}
{{- end }}
{{- with .Values.operator.watchNamespaces }}
- --watch-namespaces={{ join "," . }}
{{- end }}
{{- with .Values.operator.defaultTunnel }}
- --default-tunnel={{ . }}
{{- end }}
{{- end }}

{{- define "culvert.relayTunnelName" -}}
culvert-relay-tunnel.{{ .Release.Namespace }}.svc.{{ .Values.operator.clusterDomain }}
{{- end }}
{{- define "culvert.relayServerNames" -}}
{{- $names := list (include "culvert.relayTunnelName" .) (printf "culvert-relay-tunnel.%s.svc" .Release.Namespace) (printf "culvert-relay.%s.svc.%s" .Release.Namespace .Values.operator.clusterDomain) (printf "culvert-relay.%s.svc" .Release.Namespace) -}}
{{- concat $names .Values.relay.serverNames | uniq | toJson -}}
{{- end }}

{{/* relay.yml but for its issuers, which a running relay reads anew: a change of this restarts the Pods */}}
{{- define "culvert.relayFixed" -}}
serverNames: {{ include "culvert.relayServerNames" . }}
listen:
  http: ["0.0.0.0:8080"]
  https: ["0.0.0.0:8443"]
  tunnel: ["0.0.0.0:7443"]
  admin: "0.0.0.0:9901"
tls: {certificateDir: /etc/culvert/certificates}
stateFile: /var/lib/culvert/revocations.json
gracePeriod: {{ .Values.relay.gracePeriodSeconds }}s
{{- with .Values.relay.config }}
{{ toYaml . }}
{{- end }}
{{- end }}
