/** kustomize/README.md tells of everything that there is, and what it tells to write does what it says. */
import { readFileSync } from 'node:fs'
import { basename, join } from 'node:path'
import { describe, expect, test } from 'vitest'
import {
  build,
  buildFiles,
  buildMine,
  identity,
  kustomizations,
  type Manifest,
  needed,
  ROOT,
  withItsOwn,
} from './build.ts'

const MAX_LINES = 360
const readme = readFileSync(join(ROOT, 'README.md'), 'utf8')

/** The cells of each row of the table that begins so. */
function rowsOf(head: string) {
  const table = readme.slice(readme.indexOf(head)).split('\n\n')[0] ?? ''
  return table.split('\n').map((line) => line.split('|').map((cell) => cell.trim()))
}
const listOf = (cell = '') => cell.split(', ').filter(Boolean).sort()

test('it is short enough to be read', () => {
  expect(readme.trimEnd().split('\n').length).toBeLessThanOrEqual(MAX_LINES)
})

describe('the table of components', () => {
  const rows = rowsOf('| component | adds | takes away |')
  // A ConfigMap's name changes with what is in it.
  const objects = (...components: string[]) =>
    buildMine({ resources: ['../gke'], components, configMapGenerator: needed }).filter(
      ({ kind }) => kind !== 'ConfigMap',
    )
  const without = (manifests: Manifest[], others: Manifest[]) => {
    const names = others.map(identity)
    return manifests.filter((manifest) => !names.includes(identity(manifest)))
  }

  test.each(kustomizations().components)('says what %s adds, and what kubectl leaves behind', (folder) => {
    const [, , adds, takesAway] = rows.find(([, name]) => name === `[\`${basename(folder)}\`](${folder})`) ?? []
    const before = objects(...withItsOwn(`../../${folder}`).slice(0, -1))
    const after = objects(...withItsOwn(`../../${folder}`))
    expect(listOf(adds)).toEqual([...new Set(without(after, before).map(({ kind }) => kind))].sort())
    expect(listOf(takesAway)).toEqual(
      without(before, after)
        .map(({ kind, metadata }) => `${kind} ${metadata.name}`)
        .sort(),
    )
  })
})

test('the table of resources has each object of overlays/gke, and the file that it is in', () => {
  const rows = rowsOf('| resource | file in `base` |')
  const unnamed = build('overlays/gke').filter(({ kind, metadata }) => {
    const told = rows.filter(([, resource]) => resource?.includes(`**${kind}**`))
    if (kind === 'ConfigMap') return told.length === 0
    const files = told.flatMap(([, , cell = '']) => [...cell.matchAll(/\((.+?)\)/g)].map(([, path = '']) => path))
    const objects = files.flatMap((path) => readFileSync(join(ROOT, path), 'utf8').split(/^---$/m))
    return !objects.some((text) => text.includes(`kind: ${kind}\n`) && text.includes(`name: ${metadata.name}\n`))
  })
  expect(unnamed.map(identity)).toEqual([])
})

describe('the kustomizations that it tells to write', () => {
  const folders = new Map<string, Record<string, string>>()
  for (const [, folder = '', file = '', text = ''] of readme.matchAll(
    /^```\n# kustomize\/overlays\/([\w-]+)\/(\S+)\n(.*?)^```$/gms,
  )) {
    folders.set(folder, { ...folders.get(folder), [file]: text })
  }
  const find = (folder: string, kind: string) => {
    const manifests = buildFiles(folders.get(folder) ?? {})
    return manifests.filter((manifest) => manifest.kind === kind)
  }

  test.each([
    ['traefik', 'Ingress', [{ spec: { ingressClassName: 'traefik' } }]],
    ['pull-7', 'Namespace', [{ metadata: { name: 'users-pull-7' } }]],
    ['mine', 'HorizontalPodAutoscaler', [{ metadata: { name: 'users-api' } }]],
    ['iap', 'BackendConfig', [{ spec: { iap: { enabled: true } } }]],
    [
      'archive',
      'Cluster',
      [{ spec: { plugins: [{ isWALArchiver: true, parameters: { barmanObjectName: 'users-db' } }] } }],
    ],
    ['archive', 'ObjectStore', [{ metadata: { name: 'users-db', namespace: 'users' } }]],
    ['archive', 'ScheduledBackup', [{ spec: { cluster: { name: 'users-db' }, method: 'plugin' } }]],
    [
      'gateway',
      'Gateway',
      [
        {
          metadata: { annotations: { 'networking.gke.io/certmap': 'MAP' } },
          spec: {
            listeners: [
              { name: 'http', port: 80 },
              { name: 'https', protocol: 'HTTPS', port: 443 },
            ],
          },
        },
      ],
    ],
    [
      'gateway',
      'HTTPRoute',
      [
        { spec: { parentRefs: [{ sectionName: 'http' }], rules: [{ filters: [{ type: 'RequestRedirect' }] }] } },
        { spec: { parentRefs: [{ sectionName: 'https' }] } },
      ],
    ],
  ])('%s: its %s is as it says', (folder, kind, expected) => {
    expect(find(folder, kind)).toMatchObject(expected)
  })

  test('mine: its settings are in a ConfigMap', () => {
    const data = find('mine', 'ConfigMap').map((configMap) => configMap.data)
    expect(data).toContainEqual(expect.objectContaining({ LOG_LEVEL: 'debug', BACKUP_KEEP_DAYS: '30' }))
  })

  test('are the ones that are tried here', () => {
    expect([...folders.keys()].sort()).toEqual(['archive', 'gateway', 'iap', 'mine', 'pull-7', 'traefik'])
  })
})
