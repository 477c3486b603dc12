import { execFile } from 'node:child_process'
import { cp, mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { promisify } from 'node:util'

export const NAMESPACE = 'users'
/** The one of overlays/gke-staging. */
export const STAGING = 'users-staging'
export const KUSTOMIZE = join(import.meta.dirname, '../../kustomize')
/** Marks a namespace that these tests made, and may delete. */
const MARK = 'users-api/e2e=yes'

const run = promisify(execFile)

/** What these tests read of an object; the API server knows more. */
export type KubernetesObject = {
  kind: string
  metadata: {
    name: string
    uid: string
    resourceVersion: string
    labels?: Record<string, string>
    deletionTimestamp?: string
  }
}
type Terminated = { exitCode: number; message?: string; finishedAt: string }
export type ContainerStatus = {
  name: string
  ready: boolean
  restartCount: number
  image: string
  state: { terminated?: Terminated; waiting?: { reason: string } }
  lastState: { terminated?: Terminated }
}
export type Pod = KubernetesObject & {
  spec: { nodeName: string }
  status: {
    phase: string
    podIP: string
    conditions?: { type: string; status: string }[]
    initContainerStatuses?: ContainerStatus[]
    containerStatuses?: ContainerStatus[]
  }
}

/** Runs kubectl in the namespace users, or in another that the arguments name, against whichever cluster it points at. */
export async function kubectl(...args: string[]): Promise<string> {
  const { stdout } = await run('kubectl', ['--namespace', NAMESPACE, ...args], { maxBuffer: 64 * 1024 * 1024 })
  return stdout.trim()
}

/** The same with a manifest on stdin. */
export function kubectlWithInput(input: string, ...args: string[]): Promise<string> {
  const promise = run('kubectl', ['--namespace', NAMESPACE, ...args], { maxBuffer: 64 * 1024 * 1024 })
  promise.child.stdin?.end(input)
  return promise.then(({ stdout, stderr }) => (stdout + stderr).trim())
}

export async function get<T = KubernetesObject>(...args: string[]): Promise<T> {
  return JSON.parse(await kubectl('get', ...args, '--output=json')) as T
}

export async function list<T = KubernetesObject>(...args: string[]): Promise<T[]> {
  return (await get<{ items: T[] }>(...args)).items
}

export const apiPods = () => list<Pod>('pods', '--selector=app.kubernetes.io/name=users-api')

/** API pods that are ready and not about to end. */
export async function readyApiPods(): Promise<Pod[]> {
  return (await apiPods()).filter((pod) => !pod.metadata.deletionTimestamp && isReady(pod))
}

export const isReady = (pod: Pod) =>
  pod.status.conditions?.some(({ type, status }) => type === 'Ready' && status === 'True') ?? false

export async function until<T>(what: string, seconds: number, probe: () => Promise<T | undefined | false>): Promise<T> {
  const deadline = Date.now() + seconds * 1000
  for (;;) {
    const found = await probe()
    if (found !== undefined && found !== false) return found
    if (Date.now() > deadline) throw new Error(`not within ${seconds} s: ${what}`)
    await sleep(500)
  }
}

/**
 * Applies a kustomization of ours, whose image is the one that it names unless E2E_IMAGE says another, with a change to
 * it, if any, that someone who uses it would write into a kustomization of his own, beside the folder `kustomize`.
 * @returns what kubectl says, an object a line
 */
export async function apply(kustomization: string, change = '', namespace = NAMESPACE): Promise<string[]> {
  // Not in the project, whose files other tests copy meanwhile: beside a copy of its `kustomize`.
  const folder = await mkdtemp(join(tmpdir(), 'kustomization-'))
  try {
    const image = process.env.E2E_IMAGE
    await cp(KUSTOMIZE, join(folder, 'kustomize'), { recursive: true })
    await writeFile(
      join(folder, 'kustomization.yaml'),
      [
        `resources: [kustomize/${kustomization}]`,
        image && `images: [{name: ${(await imageOf(kustomization)).name}, ${nameAndTag(image)}}]`,
        change,
      ]
        .filter(Boolean)
        .join('\n'),
    )
    const direct = !image && !change
    const path = direct ? join(KUSTOMIZE, kustomization) : folder
    const lines = await kubectl(`--namespace=${namespace}`, 'apply', '--kustomize', path)
    await prepareNamespace(namespace)
    return lines.split('\n')
  } finally {
    await rm(folder, { recursive: true })
  }
}

/**
 * Marks a namespace as made by these tests, and lets its pods reach this cluster's API server: overlays/gke opens the port
 * of GKE's alone.
 */
export async function prepareNamespace(namespace = NAMESPACE): Promise<void> {
  await kubectl('label', 'namespace', namespace, MARK, '--overwrite')
  type Slice = { endpoints: { addresses: string[] }[]; ports: { port: number }[] }
  const service = '--selector=kubernetes.io/service-name=kubernetes'
  const egress = (await list<Slice>('endpointslices', '--namespace=default', service)).map(({ endpoints, ports }) => ({
    to: endpoints.flatMap(({ addresses }) => addresses.map((address) => ({ ipBlock: { cidr: `${address}/32` } }))),
    ports: ports.map(({ port }) => ({ protocol: 'TCP', port })),
  }))
  const policy = {
    apiVersion: 'networking.k8s.io/v1',
    kind: 'NetworkPolicy',
    metadata: { name: 'e2e-to-kubernetes' },
    spec: { podSelector: { matchLabels: { 'app.kubernetes.io/name': 'users-api' } }, policyTypes: ['Egress'], egress },
  }
  await kubectlWithInput(JSON.stringify(policy), `--namespace=${namespace}`, 'apply', '--filename=-')
}

/** Waits until what was applied runs, the database too. */
export async function settled(namespace = NAMESPACE): Promise<void> {
  for (const workload of ['statefulset/users-db', 'deployment/users-api']) {
    await kubectl(`--namespace=${namespace}`, 'rollout', 'status', workload, '--timeout=180s')
  }
}

/** Waits until no API pod is on its way out, which is when its last connection has ended. */
export const allGone = () =>
  until('ending API pods are gone', 150, async () => (await apiPods()).every((pod) => !pod.metadata.deletionTimestamp))

/** Counts a new pod as available at once: the pause that Google's load balancer needs makes a rollout a minute longer. */
export const hurry = () => kubectl('patch', 'deployment', 'users-api', '--patch={"spec": {"minReadySeconds": 0}}')

/** The overlay gke, running: from nothing, or brought back to what it says. */
export async function running(): Promise<void> {
  await apply('overlays/gke')
  await hurry()
  await settled()
  await allGone()
}

/** The image that a kustomization of ours gives the API. */
export async function imageOf(kustomization: string): Promise<{ name: string; full: string }> {
  const manifests = await kubectl('kustomize', join(KUSTOMIZE, kustomization))
  const full = /image: (\S*users-api\S*)/.exec(manifests)?.[1]
  if (!full) throw new Error(`${kustomization} names no image`)
  return { name: full.replace(/@.*$/, '').replace(/:[^/:]*$/, ''), full }
}

function nameAndTag(image: string): string {
  const [, name, tag] = /^(.*?):([^/:@]+)$/.exec(image) ?? []
  if (!name || !tag) throw new Error(`E2E_IMAGE has to be name:tag, not ${image}`)
  return `newName: ${name}, newTag: "${tag}"`
}

/** Where the service is reached: E2E_BASE_URL, or the address that the Ingress was given. */
export async function baseUrl(): Promise<string> {
  if (process.env.E2E_BASE_URL) return process.env.E2E_BASE_URL.replace(/\/$/, '')
  type Ingress = { status: { loadBalancer: { ingress?: { ip?: string; hostname?: string }[] } } }
  return until('the Ingress has an address', 300, async () => {
    const [address] = (await get<Ingress>('ingress', 'users-api')).status.loadBalancer.ingress ?? []
    const host = address?.ip ?? address?.hostname
    return host && `http://${host}`
  })
}

/** The same, once the service answers there: a load balancer may need minutes for its first. */
export async function reachable(): Promise<string> {
  const url = await baseUrl()
  await until(`${url}/users answers`, 300, async () =>
    fetch(`${url}/users?limit=1`, { signal: AbortSignal.timeout(5000) }).then(
      (answer) => answer.ok,
      () => false,
    ),
  )
  return url
}

/** Runs JavaScript in a container of ours: there is no shell in it, but Node. */
export const node = (pod: string, script: string, namespace = NAMESPACE) =>
  kubectl(
    ...[`--namespace=${namespace}`, 'exec', pod, '--container=api', '--'],
    ...['/nodejs/bin/node', '--input-type=module', '--eval', script],
  )

/** JavaScript that tries to open a connection, and prints `open`, or why not. */
export const attempt = (host: string, port: number) => `
  import { connect } from 'node:net'
  const socket = connect({ host: '${host}', port: ${port}, timeout: 3000 })
  const end = (text) => { console.log(text); process.exit() }
  socket.on('connect', () => end('open')).on('timeout', () => end('silence')).on('error', (error) => end(error.code))`

/**
 * Starts a pod of the API's image that runs JavaScript, in a namespace whose policies do not keep it from speaking. It is ready when
 * it listens on 8080. `node` runs more in it.
 */
export async function startPod(namespace: string, name: string, script: string): Promise<Pod> {
  const container = {
    name: 'api',
    image: process.env.E2E_IMAGE ?? (await imageOf('overlays/gke')).full,
    command: ['/nodejs/bin/node', '--input-type=module', '--eval'],
    args: [script],
    readinessProbe: { tcpSocket: { port: 8080 }, periodSeconds: 1 },
  }
  // As root, so that it may listen on 443.
  const spec = { terminationGracePeriodSeconds: 0, securityContext: { runAsUser: 0 }, containers: [container] }
  const pod = { apiVersion: 'v1', kind: 'Pod', metadata: { name, labels: { app: name } }, spec }
  await kubectlWithInput(JSON.stringify(pod), `--namespace=${namespace}`, 'apply', '--filename=-')
  await kubectl(`--namespace=${namespace}`, 'wait', '--for=condition=Ready', `pod/${name}`, '--timeout=60s')
  return get<Pod>('pod', name, `--namespace=${namespace}`)
}

export const psql = (sql: string) =>
  kubectl('exec', 'users-db-0', '--', 'psql', '--username=postgres', '--dbname=users', '-qAtc', sql)

/** Deletes the namespace, at once and with all that is in it. @throws where these tests did not make it */
export async function deleteNamespace(namespace = NAMESPACE): Promise<void> {
  const [key, value] = MARK.split('=')
  const found = (await list('namespaces')).find(({ metadata }) => metadata.name === namespace)
  if (!found) return
  if (found.metadata.labels?.[`${key}`] !== value) {
    throw new Error(
      `There is a namespace ${namespace} that these tests did not make, and they would delete it with its data. If that is ` +
        `what you want: kubectl label namespace ${namespace} ${MARK}`,
    )
  }
  // In this order: in a namespace that ends nothing is made again, so that its pods, hurried on, are the last.
  await kubectl('delete', 'namespace', namespace, '--wait=false')
  await kubectl(`--namespace=${namespace}`, 'delete', 'pods', '--all', '--grace-period=1', '--wait=false')
  await until(`namespace ${namespace} is gone`, 180, async () =>
    (await list('namespaces')).every(({ metadata }) => metadata.name !== namespace),
  )
}
