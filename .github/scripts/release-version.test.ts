import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { makeRepository } from './repository.ts'

const DIGEST = `sha256:${'0123456789abcdef'.repeat(4)}`

/** Main's release is there, the version's is not. What is attested has the name of its type; a new release prints its files. */
const GH = `case "$1 $2" in
  "run list") echo 42;;
  "release view") exit 1;;
  "attestation verify") echo "$*" | sed -E 's/.*--predicate-type ([^ ]+).*/\\1/';;
  "release create") cat "$4" "$5" >"$(dirname "$0")/../files";;
esac`

let repository: ReturnType<typeof makeRepository>
beforeEach(() => {
  repository = makeRepository()
  repository.stub('gh', GH)
  repository.stub('docker', `[ "$3" != inspect ] || echo ${DIGEST}`)
  repository.stub('cosign', 'echo "[]"')
})
afterEach(() => repository.remove())

const commitVersion = (version: string) => repository.commit('package.json', JSON.stringify({ version }))
const release = (tag: string) => repository.script('release-version.ts', tag)
const called = (start: string) => repository.calls().filter((call) => call.startsWith(start))
const imageName = () => repository.script('set-image.ts', '--name')

/** The tags that the image gets when this version is released. */
function tagsOf(tag: string) {
  release(tag)
  const [call = ''] = called('docker buildx imagetools create').slice(-1)
  return [...call.matchAll(/--tag \S+:(\S+)/g)].map(([, name]) => name)
}

describe('a version', () => {
  test("is the image that main's release made of the commit, under more names", () => {
    const commit = commitVersion('1.2.3')
    repository.git('tag', 'v1.2.3')
    release('v1.2.3')

    const name = imageName()
    expect(called('docker')).toEqual([
      `docker buildx imagetools inspect ${name}:sha-${commit} --format {{.Manifest.Digest}}`,
      `docker buildx imagetools create --tag ${name}:1.2.3 --tag ${name}:1.2 --tag ${name}:latest ${name}@${DIGEST}`,
    ])
    expect(called('gh release create').map((call) => call.replaceAll(/ \/\S+\//g, ' '))).toEqual([
      `gh release create v1.2.3 sbom.cdx.json provenance.intoto.jsonl --verify-tag --title v1.2.3 --latest=true --generate-notes --notes Image: \`${name}:1.2.3@${DIGEST}\``,
    ])
  })

  test('is made after the release of its commit ended well and its signature was verified', () => {
    const commit = commitVersion('1.2.3')
    repository.git('tag', 'v1.2.3')
    release('v1.2.3')

    const steps = repository.calls().map((call) => call.split(' ').slice(0, 4).join(' '))
    expect(steps).toEqual([
      'gh release view v1.2.3',
      'gh run list --workflow',
      'gh run watch 42',
      'docker buildx imagetools inspect',
      'cosign verify --certificate-oidc-issuer https://token.actions.githubusercontent.com',
      `gh attestation verify oci://${imageName()}@${DIGEST}`,
      `gh attestation verify oci://${imageName()}@${DIGEST}`,
      'docker buildx imagetools create',
      'gh release create v1.2.3',
    ])
    expect(called('gh run list')[0]).toContain(`--workflow release.yml --branch main --commit ${commit}`)
    expect(called('gh run watch')[0]).toContain('42 --exit-status')
    expect(called('cosign')[0]).toMatch(
      'https://github.com/you/users-api/.github/workflows/release.yml@refs/heads/main ' +
        `--certificate-github-workflow-sha ${commit} ${imageName()}@${DIGEST}`,
    )
  })

  test('has the bill of materials and the build record as files, as the release workflow attested them', () => {
    const commit = commitVersion('1.2.3')
    repository.git('tag', 'v1.2.3')
    release('v1.2.3')
    const files = readFileSync(join(repository.folder, 'files'), 'utf8')
    expect(files).toBe('https://cyclonedx.org/bomhttps://slsa.dev/provenance/v1')
    for (const call of called('gh attestation verify'))
      expect(call).toContain(
        '--repo you/users-api --signer-workflow you/users-api/.github/workflows/release.yml ' +
          `--source-ref refs/heads/main --source-digest ${commit}`,
      )
  })

  test('is not made when its image is not attested', () => {
    commitVersion('1.2.3')
    repository.git('tag', 'v1.2.3')
    repository.stub('gh', `[ "$1" != attestation ] || exit 1; ${GH}`)
    expect(() => release('v1.2.3')).toThrow()
    expect([...called('docker buildx imagetools create'), ...called('gh release create')]).toEqual([])
  })

  test.each(['gh', 'cosign', 'docker'])('changes nothing when %s refuses', (program) => {
    commitVersion('1.2.3')
    repository.git('tag', 'v1.2.3')
    repository.stub(program, program === 'gh' ? `[ "$2" != watch ] || exit 1; ${GH}` : 'exit 1')
    expect(() => release('v1.2.3')).toThrow()
    expect([...called('docker buildx imagetools create'), ...called('gh release create')]).toEqual([])
  })

  test('can be tagged at the commit that deployed it, which has no release of its own', () => {
    const commit = commitVersion('1.2.3')
    repository.script('set-image.ts', `sha-${commit}@${DIGEST}`, '--push')
    repository.git('tag', 'v1.2.3')
    release('v1.2.3')
    expect(called('gh run list')[0]).toContain(commit)
  })

  test('can be tagged at the merge of a pull request, whose release is that of the merge', () => {
    const { git } = repository
    git('switch', '--quiet', '--create', 'topic')
    writeFileSync(join(repository.clone, 'package.json'), JSON.stringify({ version: '1.2.3' }))
    git('commit', '--quiet', '--all', '--message=topic')
    git('switch', '--quiet', 'main')
    git('merge', '--quiet', '--no-ff', '--no-edit', 'topic')
    git('push', '--quiet', 'origin', 'main')
    git('tag', 'v1.2.3')
    release('v1.2.3')
    expect(called('gh run list')[0]).toContain(git('rev-parse', 'HEAD'))
  })

  test('is refused where package.json has another, or when it is not on main', () => {
    commitVersion('1.2.3')
    repository.git('tag', 'v1.2.4')
    expect(() => release('v1.2.4')).toThrow('v1.2.4 is not the version in package.json, which is 1.2.3')

    repository.git('commit', '--quiet', '--allow-empty', '--message=elsewhere')
    repository.git('tag', 'v1.2.3')
    expect(() => release('v1.2.3')).toThrow('v1.2.3 is not on main')
    expect(repository.calls()).toEqual(['gh release view v1.2.4', 'gh release view v1.2.3'])
  })

  test.each(['', 'v1.2', '1.2.3', 'v1.2.3+build', 'latest'])('is refused as %j', (tag) => {
    expect(() => release(tag)).toThrow(/is not a version like v1\.2\.3/)
  })

  test('says what to tag when main has no release of the commit', () => {
    const commit = commitVersion('1.2.3')
    repository.git('tag', 'v1.2.3')
    repository.stub('gh', '[ "$1" != release ] || exit 1')
    expect(() => release('v1.2.3')).toThrow(`main has no release of ${commit}: tag the last commit of a push`)
  })

  test('stays as it is when its release is run again', () => {
    commitVersion('1.2.3')
    repository.git('tag', 'v1.2.3')
    repository.stub('gh', '')
    expect(release('v1.2.3')).toBe('GitHub has a release v1.2.3 already: nothing to do')
    expect(called('docker')).toEqual([])
  })
})

describe('its tags', () => {
  beforeEach(() => {
    for (const version of ['1.2.3', '1.2.10', '1.3.0', '2.0.0-rc.1']) {
      commitVersion(version)
      repository.git('tag', `v${version}`)
    }
  })

  test.each([
    ['v1.3.0', ['1.3.0', '1.3', 'latest']],
    ['v1.2.10', ['1.2.10', '1.2']],
    ['v1.2.3', ['1.2.3']],
    ['v2.0.0-rc.1', ['2.0.0-rc.1']],
  ])('of %s are %j, whatever was released since', (tag, tags) => {
    expect(tagsOf(tag)).toEqual(tags)
  })

  test('of a pre-release, or one older than the latest, make no latest release on GitHub', () => {
    release('v2.0.0-rc.1')
    release('v1.2.10')
    const [prerelease, older] = called('gh release create')
    expect(prerelease).toContain('--prerelease')
    expect(older).toContain('--latest=false')
  })
})
