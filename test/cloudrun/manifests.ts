import { readFileSync } from 'node:fs'
import { parse } from 'yaml'
import { ROOT } from '../process.ts'

/** A variable of a container: its value, or the name of the secret that holds it. */
export type Variable = { name: string; value?: string; valueFrom?: { secretKeyRef: { name: string } } }

export type Container = {
  image: string
  env: Variable[]
  ports: { containerPort: number }[]
  resources: { limits: { memory: string } }
}

type Metadata = { annotations: Record<string, string> }

export type Service = {
  metadata: Metadata
  spec: {
    template: {
      metadata: Metadata
      spec: {
        serviceAccountName: string
        containerConcurrency: number
        timeoutSeconds: number
        containers: [Container]
      }
    }
  }
}

export type Job = {
  spec: {
    template: {
      metadata: Metadata
      spec: { template: { spec: { serviceAccountName: string; containers: [Container] } } }
    }
  }
}

const read = (name: string) => parse(readFileSync(`${ROOT}cloudrun/${name}`, 'utf8'))

export const service: Service = read('service.yaml')
export const job: Job = read('migrate.yaml')

export const [api] = service.spec.template.spec.containers
export const [migrate] = job.spec.template.spec.template.spec.containers

/** Instances of the whole service. */
export const MAX_INSTANCES = Number(service.metadata.annotations['run.googleapis.com/maxScale'])
export const CONCURRENCY = service.spec.template.spec.containerConcurrency
/** Connections that an instance may hold beside DB_CONNECTIONS, for streams and /readyz. */
export const STREAM_CONNECTIONS = 4
/** From SIGTERM to SIGKILL, on Cloud Run. */
export const KILL_AFTER_MS = 10_000

/** The environment that a container gets. `secrets` holds what the secrets do, by their name. */
export const environmentOf = ({ env }: Container, secrets: Record<string, string>): Record<string, string> =>
  Object.fromEntries(
    env.map(({ name, value, valueFrom }) => [name, value ?? secrets[valueFrom?.secretKeyRef.name ?? ''] ?? '']),
  )
