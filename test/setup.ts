import { fileURLToPath } from 'node:url'
import connect from 'postgres'
import type { TestProject } from 'vitest/node'
import { startPostgres } from '../dev/postgres.ts'
import { migrate } from '../src/db/migrate.ts'
import { addressOf } from './database.ts'

declare module 'vitest' {
  interface ProvidedContext {
    /** The PostgreSQL that the whole run shares: each test file makes a database of its own in it. */
    postgresUrl: string
  }
}

/** One PostgreSQL for the run. Its database `migrated` is the template of the others: nobody may be connected to that. */
export default async function setup(project: TestProject) {
  const postgres = await startPostgres({ settings: { fsync: 'off', max_connections: 300 } })
  const folder = fileURLToPath(new URL('../drizzle', import.meta.url))
  await migrate({ address: addressOf(postgres.url), folder, api: undefined, MIGRATE_WAIT_MS: 0 })
  const admin = connect(postgres.url, { max: 1 })
  await admin`create database migrated template postgres`
  await admin.end()
  project.provide('postgresUrl', postgres.url)
  return postgres.stop
}
