/** The component backup, as far as it can be told without a cluster; test/e2e/backup.e2e.ts dumps and restores. */
import { describe, expect, test } from 'vitest'
import { build, buildMine, containersOf, environmentOf, type Manifest, podTemplateOf } from './build.ts'

const mine = (overlay: string, more: object = {}) =>
  buildMine({ resources: [`../${overlay}`], components: ['../../components/backup'], ...more })
const named = (manifests: Manifest[], kind: string, name: string) => {
  const found = manifests.find((manifest) => manifest.kind === kind && manifest.metadata.name === name)
  if (!found) throw new Error(`no ${kind} ${name}`)
  return found
}
const jobs = (manifests: Manifest[]) =>
  ['users-db-backup', 'users-db-restore'].map((name) => named(manifests, 'CronJob', name))
const imagesOf = (workload: Manifest) => containersOf(workload).map(({ image }) => image)

test.each(['gke', 'minikube'])("on %s it uses the database's own image, also where a user names another", (overlay) => {
  const images = [{ name: 'docker.io/library/postgres', newTag: '18.9-trixie' }]
  for (const manifests of [mine(overlay), mine(overlay, { images })]) {
    const own = imagesOf(named(manifests, 'StatefulSet', 'users-db'))
    for (const job of jobs(manifests)) expect(imagesOf(job)).toEqual(own)
  }
})

test.each(['gke', 'minikube'])(
  'on %s it reaches the database and DNS as the API does, and nobody reaches it',
  (overlay) => {
    const manifests = mine(overlay)
    const label = { 'app.kubernetes.io/name': 'users-db-backup' }
    for (const job of jobs(manifests)) expect(podTemplateOf(job).metadata.labels).toMatchObject(label)
    const policies = manifests.filter(
      ({ kind, spec }) =>
        kind === 'NetworkPolicy' && JSON.stringify(spec.podSelector) === JSON.stringify({ matchLabels: label }),
    )
    expect(policies.map(({ metadata }) => metadata.name)).toEqual(['backup-to-database', 'backup-to-dns'])
    for (const { metadata, spec } of policies) {
      const api = named(manifests, 'NetworkPolicy', metadata.name.replace('backup', 'api'))
      expect([spec.ingress, spec.egress]).toEqual([undefined, api.spec.egress])
    }
    const { ingress } = named(manifests, 'NetworkPolicy', 'database-from-backup').spec
    expect(ingress).toMatchObject([{ from: [{ podSelector: { matchLabels: label } }] }])
  },
)

describe('the component backup', () => {
  const manifests = build('tests/backup')
  const [backup, restore] = jobs(manifests) as [Manifest, Manifest]

  test("reads the user's settings, and of the Secret the owner's password alone", () => {
    const literals = ['BACKUP_KEEP_DAYS=3', 'DB_SSLMODE=require']
    const set = mine('gke', { configMapGenerator: [{ name: 'users-api', behavior: 'merge', literals }] })
    for (const container of jobs(set).flatMap(containersOf)) {
      const variables = environmentOf(container, set)
      expect([variables.get('BACKUP_KEEP_DAYS'), variables.get('DB_SSLMODE')]).toEqual(['3', 'require'])
      const secrets = container.env?.flatMap(({ valueFrom }) => valueFrom?.secretKeyRef ?? [])
      expect(secrets).toEqual([{ name: 'users-db', key: 'owner-password' }])
    }
  })

  test('runs one dump at a time, and one that hangs ends long before the next', () => {
    expect(backup.spec).toMatchObject({ schedule: '17 3 * * *', concurrencyPolicy: 'Forbid' })
    expect(backup.spec.jobTemplate?.spec.activeDeadlineSeconds).toBeLessThanOrEqual(12 * 3600)
  })

  test('restores only when it is told', () => {
    expect(restore.spec).toMatchObject({ suspend: true, schedule: '0 0 31 2 *' })
  })

  test.each(['cloudnative-pg', 'cloudsql'])('cannot be built beside %s, which brings another database', (other) => {
    const both = ['backup', other].map((name) => `../../components/${name}`)
    const built = (components: string[]) => () => buildMine({ resources: ['../gke'], components })
    expect(built(both)).toThrow('testing value /spec/suspend failed')
    expect(built(both.toReversed())).toThrow('nothing selected by StatefulSet')
  })
})
