/** What the component backup dumps comes back, by the commands of kustomize/README.md as they are there. */
import { execFile } from 'node:child_process'
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { afterAll, beforeAll, beforeEach, expect, test } from 'vitest'
import {
  apply,
  get,
  KUSTOMIZE,
  kubectl,
  kubectlWithInput,
  type Pod,
  psql,
  reachable,
  readyApiPods,
  running,
  settled,
  until,
} from './kubectl.ts'

type Job = {
  spec: { template: { spec: { containers: { args: string[] }[] } } }
  status: { conditions?: { type: string; status: string }[] }
}

const FROM_BACKUP = '--from=cronjob/users-db-backup'
/** A dump of a time long past. */
const OLD = '20200101T000000Z.dump'

/** Runs the first commands under "Back up and restore" that have the text: a block, or a command in a sentence. */
async function asDocumented(text: string, change = (commands: string) => commands) {
  const readme = await readFile(join(KUSTOMIZE, 'README.md'), 'utf8')
  const section = readme.split(/^## /m).find((part) => part.startsWith('Back up and restore\n')) ?? ''
  const found = [...section.matchAll(/^```\n(.*?)^```$|`(kubectl [^`]+)`/gms)]
  const commands = found.map(([, block, command]) => block ?? command ?? '').find((one) => one.includes(text))
  if (!commands) throw new Error(`kustomize/README.md has no commands with ${text}`)
  await promisify(execFile)('sh', ['-ec', change(commands)])
}

const dump = () => asDocumented(FROM_BACKUP)
const restore = () => asDocumented('--from=cronjob/users-db-restore')
async function restartApi() {
  await asDocumented('rollout restart')
  await settled()
}

const ended = (job: string) =>
  until(`the job ${job} ends`, 300, async () => {
    const { conditions = [] } = (await get<Job>('job', job)).status
    return conditions.find(({ type, status }) => status === 'True' && ['Complete', 'Failed'].includes(type))?.type
  })

/** Runs a script in a pod like the one that dumps. Returns what it prints, by lines. */
async function inBackups(script: string): Promise<string[]> {
  const job: Job = JSON.parse(await kubectl('create', 'job', 'look', FROM_BACKUP, '--dry-run=client', '--output=json'))
  for (const container of job.spec.template.spec.containers) container.args = [`cd /backups; ${script}`]
  await kubectlWithInput(JSON.stringify(job), 'create', '--filename=-')
  expect(await ended('look'), script).toBe('Complete')
  const log = await kubectl('logs', 'job/look')
  await kubectl('delete', 'job', 'look')
  return log.split('\n').filter(Boolean)
}
const files = () => inBackups('for file in *; do echo "$file"; done')
const dumps = async () => (await files()).filter((name) => name.endsWith('.dump'))

/** How many users there are, and a checksum of all that is in them. */
const checksum = () => psql(`select count(*), md5(string_agg(u::text, ';' order by id)) from users u`)

let url: string
const post = (username: string) =>
  fetch(`${url}/users`, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify({ username, email: `${username}@example.com` }),
  })
const find = async (username: string) => (await fetch(`${url}/users?username=${username}`)).json()

beforeAll(async () => {
  await running()
  url = await reachable()
  await apply('tests/backup')
  await settled()
})
beforeEach(() => kubectl('delete', 'job', 'dump', 'restore', 'look', '--ignore-not-found'))
afterAll(async () => {
  await kubectl('delete', 'cronjob', 'users-db-backup', 'users-db-restore', '--ignore-not-found')
  const policies = ['backup-to-database', 'database-from-backup', 'backup-to-dns']
  await kubectl('delete', 'networkpolicy', ...policies, '--ignore-not-found')
  await kubectl('delete', 'pvc', 'users-db-backup', '--ignore-not-found', '--wait=false')
})

test('every user of a dump is back after a restore into an empty database, and ids go on', async () => {
  expect((await post('dumped')).status).toBe(201)
  await psql(
    `insert into users (username, email) select 'dumped-' || n, 'dumped-' || n || '@example.com' from generate_series(1, 5000) n`,
  )
  const [before, lastId] = [await checksum(), Number(await psql('select max(id) from users'))]
  await dump()
  expect((await post('written-later')).status).toBe(201)

  const commands = ['drop database users with (force)', 'create database users'].map((sql) => `--command=${sql}`)
  await kubectl('exec', 'users-db-0', '--', 'psql', '--username=postgres', '--dbname=postgres', ...commands)
  await restartApi()
  expect(await psql('select count(*) from users')).toBe('0')
  await restore()

  expect(await checksum()).toBe(before)
  await until('the API serves them', 60, async () => (await fetch(`${url}/users?limit=1`)).ok)
  expect(await find('dumped')).toMatchObject({ users: [{ email: 'dumped@example.com' }] })
  expect(await find('written-later')).toMatchObject({ users: [] })
  const created = await post('restored')
  expect(created.status).toBe(201)
  expect(((await created.json()) as { id: number }).id).toBeGreaterThan(lastId)
}, 600_000)

test('a restore goes back to the dump that it is told, beside an API that serves', async () => {
  const before = await checksum()
  await dump()
  const chosen = (await dumps()).at(-1) ?? ''
  expect((await post('between')).status).toBe(201)
  await kubectl('delete', 'job', 'dump')
  await dump()
  expect((await dumps()).at(-1)).not.toBe(chosen)

  await asDocumented('DUMP=', (commands) => commands.replace(/DUMP=\S+/, `DUMP=${chosen}`))
  expect(await ended('restore')).toBe('Complete')
  expect(await checksum()).toBe(before)
  await until('the API serves', 60, async () => (await fetch(`${url}/users?limit=1`)).ok)
  expect(await find('between')).toMatchObject({ users: [] })
})

test('a dump that breaks off is a failed Job and no dump, and no old one goes before a new one is whole', async () => {
  const earlier = await dumps()
  await inBackups(`touch -d '20 days ago' ${OLD}`)
  await psql('create table held ()')
  const holder = psql('begin; lock table held; select pg_sleep(400)').catch(() => 'ended')
  try {
    const held = () => psql("select count(*) from pg_locks where relation = 'held'::regclass and granted")
    await until('the table is locked', 60, async () => (await held()) === '1')
    await kubectl('create', 'job', 'dump', FROM_BACKUP)
    const outcome = await until('the job has ended', 300, async () => {
      await psql(`select pg_terminate_backend(pid) from pg_stat_activity
        where application_name = 'pg_dump' and wait_event_type = 'Lock'`)
      const { conditions = [] } = (await get<Job>('job', 'dump')).status
      return conditions.find(({ type, status }) => status === 'True' && ['Complete', 'Failed'].includes(type))?.type
    })
    expect(outcome).toBe('Failed')
    expect(await kubectl('logs', 'job/dump')).toMatch(/pg_dump: error/)
  } finally {
    await psql(`select pg_terminate_backend(pid) from pg_stat_activity where query like '%lock table held%'
      and pid <> pg_backend_pid()`)
    await holder
    await psql('drop table held')
  }
  expect(await dumps()).toEqual([OLD, ...earlier])

  await kubectl('delete', 'job', 'dump')
  await dump()
  const after = await files()
  expect(after.filter((name) => name !== 'lost+found')).toEqual([
    ...earlier,
    expect.stringMatching(/^\d{8}T\d{6}Z\.dump$/),
  ])
})

test('the pods that dump reach the database, and neither the API nor another host', async () => {
  const [api] = await readyApiPods()
  const service = await get<{ spec: { clusterIP: string } }>('service', 'kubernetes', '--namespace=default')
  const targets = [`${(api as Pod).status.podIP}/3000`, `${service.spec.clusterIP}/443`]
  const said = await inBackups(`
    until timeout 3 bash -c '</dev/tcp/users-db-0.users-db/5432'; do sleep 1; done
    for target in ${targets.join(' ')}; do timeout 3 bash -c "</dev/tcp/$target" && echo open || echo closed; done`)
  expect(said.filter((line) => /^(open|closed)$/.test(line))).toEqual(['closed', 'closed'])
})
