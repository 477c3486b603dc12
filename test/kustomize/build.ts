/** Builds kustomizations: ours, and those that a user writes on top of them. */
import { execFileSync } from 'node:child_process'
import { cpSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join, resolve } from 'node:path'
import { expect, onTestFinished } from 'vitest'
import { parse, parseAllDocuments } from 'yaml'

export type Labels = Record<string, string>
type Selector = { matchLabels?: Labels }
export type Container = {
  name: string
  image: string
  args?: string[]
  restartPolicy?: string
  env?: {
    name: string
    value?: string
    valueFrom?: { secretKeyRef?: { name: string }; configMapKeyRef?: { name: string; key: string } }
  }[]
  envFrom?: { configMapRef: { name: string } }[]
  ports?: { name: string }[]
  volumeMounts?: { name: string; mountPath: string; readOnly?: boolean }[]
  readinessProbe?: { periodSeconds: number; failureThreshold: number }
  lifecycle?: { preStop: { sleep: { seconds: number } } }
  resources: { requests: Labels; limits: Labels }
  securityContext: {
    allowPrivilegeEscalation: boolean
    readOnlyRootFilesystem: boolean
    capabilities: { drop: string[] }
  }
}
type PodSpec = {
  automountServiceAccountToken: boolean
  terminationGracePeriodSeconds: number
  securityContext: { runAsNonRoot: boolean; seccompProfile: { type: string } }
  initContainers?: Container[]
  containers: Container[]
  volumes?: { name: string; secret?: { secretName: string; items: object[] } }[]
}
type PodTemplate = { metadata: { labels: Labels }; spec: PodSpec }
export type Manifest = {
  apiVersion: string
  kind: string
  metadata: { name: string; namespace?: string; annotations?: Labels }
  data?: Labels
  /** Of a Role. */
  rules?: { resourceNames?: string[] }[]
  spec: {
    replicas?: number
    maxReplicas?: number
    ingressClassName?: string
    selector?: Labels & Selector
    podSelector?: Selector
    ingress?: object[]
    egress?: object[]
    ports?: { targetPort: string }[]
    template: PodTemplate
    jobTemplate?: { spec: { activeDeadlineSeconds: number; template: PodTemplate } }
    podManagementPolicy?: string
    volumeClaimTemplates?: { metadata: object }[]
    rules?: {
      http?: { paths: { path: string; pathType: string; backend: { service: { name: string } } }[] }
      matches?: { path: { type: string; value: string } }[]
    }[]
    scaleTargetRef?: { kind: string; name: string }
    /** Of a Cluster. */
    storage?: { size: string; pvcTemplate: { storageClassName?: string } }
  }
}
type Kustomization = {
  components?: string[]
  images?: { name: string; newName?: string; newTag?: string; digest?: string }[]
  resources?: string[]
}

const CLUSTER_WIDE = ['Namespace', 'PersistentVolume']
export const ROOT = join(import.meta.dirname, '../../kustomize')

export const readKustomization = (folder: string) =>
  parse(readFileSync(join(ROOT, folder, 'kustomization.yaml'), 'utf8')) as Kustomization & { kind: string }

/** Every folder below kustomize/ with a kustomization: those that can be built, and the components. */
export function kustomizations() {
  const folders = readdirSync(ROOT, { recursive: true, encoding: 'utf8' })
    .filter((path) => path.endsWith('kustomization.yaml'))
    .map((path) => dirname(path))
  const components = folders.filter((folder) => readKustomization(folder).kind === 'Component')
  return { components, roots: folders.filter((folder) => !components.includes(folder)) }
}

const run = (command: string, ...args: string[]) =>
  execFileSync(command, args, { encoding: 'utf8', stdio: ['ignore', 'pipe', 'pipe'] })
/** Each program that builds, by its name. */
export const tools: Record<string, (folder: string) => string> = {
  kubectl: (folder) => run('kubectl', 'kustomize', resolve(ROOT, folder)),
}
const KUSTOMIZE = process.env.KUSTOMIZE ?? 'kustomize'
try {
  run(KUSTOMIZE, 'version')
  tools.kustomize = (folder) => run(KUSTOMIZE, 'build', resolve(ROOT, folder))
} catch (error) {
  if (process.env.KUSTOMIZE) throw error
}
console.log(`Built with: ${Object.keys(tools).join(', ')}`)

export const identity = ({ kind, metadata }: Manifest) => `${kind} ${metadata.namespace ?? ''}/${metadata.name}`

/** The objects that are not in a namespace and ought to be. */
export const elsewhere = (manifests: Manifest[], namespace = '') =>
  manifests
    .filter(({ kind, metadata }) => !CLUSTER_WIDE.includes(kind) && metadata.namespace !== namespace)
    .map(identity)

/** What a kustomization makes, ordered by kind and name. A relative folder is one below kustomize/. */
export function build(folder: string, tool = 'kubectl'): Manifest[] {
  const manifests = parseAllDocuments(tools[tool]?.(folder) ?? '').map((document) => document.toJS() as Manifest)
  return manifests.sort((a, b) => (identity(a) < identity(b) ? -1 : 1))
}

/** The same for a kustomization that a user writes beside our overlays, in kustomize/overlays/mine. */
export const buildMine = (kustomization: object) => buildFiles({ 'kustomization.yaml': JSON.stringify(kustomization) })

/** The same for all files of that folder, by name. */
export function buildFiles(files: Record<string, string>): Manifest[] {
  const root = mkdtempSync(join(tmpdir(), 'kustomize-'))
  onTestFinished(() => rmSync(root, { recursive: true }))
  cpSync(ROOT, root, { recursive: true })
  const mine = join(root, 'overlays/mine')
  mkdirSync(mine)
  for (const [name, text] of Object.entries(files)) writeFileSync(join(mine, name), text)
  const manifests = build(mine)
  for (const tool of Object.keys(tools)) expect(build(mine, tool), tool).toEqual(manifests)
  return manifests
}

/** Settings of the user. */
export const merged = (...literals: string[]) => [{ name: 'users-api', behavior: 'merge', literals }]

/** What components need to know from their user. */
export const needed = merged(
  'CLOUDSQL_INSTANCE=mine',
  'SECRETS_PROJECT=mine',
  'TLS_DOMAIN=mine',
  'OTEL_EXPORTER_OTLP_ENDPOINT=http://collector.mine.svc:4318',
)

/** A component and those that it stands on, as a kustomization of the user names them. */
export const withItsOwn = (component: string) =>
  component.endsWith('/tls-gke-redirect') ? ['../../components/tls-gke', component] : [component]

/** Those that make pods. */
export const workloadsOf = (manifests: Manifest[]) =>
  manifests.filter(({ kind }) => ['Deployment', 'StatefulSet', 'CronJob'].includes(kind))

/** What the pods of a workload are made from. */
export const podTemplateOf = ({ spec }: Manifest) => spec.jobTemplate?.spec.template ?? spec.template

/** The containers of a workload's pods, in the order in which they start. */
export function containersOf(workload: Manifest) {
  const { initContainers = [], containers } = podTemplateOf(workload).spec
  return [...initContainers, ...containers]
}

/** The API's containers, by name. */
export function apiContainers(manifests: Manifest[]) {
  const deployment = manifests.find(({ kind, metadata }) => kind === 'Deployment' && metadata.name === 'users-api')
  return new Map((deployment ? containersOf(deployment) : []).map((container) => [container.name, container]))
}

/** A container's variables as the kubelet puts them together; a Secret's value is undefined. */
export function environmentOf({ env = [], envFrom = [] }: Container, manifests: Manifest[]) {
  const variables = new Map<string, string | undefined>()
  const dataOf = (configMap: string) =>
    manifests.find(({ kind, metadata }) => kind === 'ConfigMap' && metadata.name === configMap)?.data ?? {}
  for (const { configMapRef } of envFrom) {
    for (const [name, value] of Object.entries(dataOf(configMapRef.name))) variables.set(name, value)
  }
  for (const { name, value, valueFrom } of env) {
    const key = valueFrom?.configMapKeyRef
    variables.set(name, key ? dataOf(key.name)[key.key] : value)
  }
  return variables
}
