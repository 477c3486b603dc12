// What Project Wycheproof says of JSON web signatures (json_web_signature_test.json, by the number of each test): for the
// algorithms that are taken here, and for those that a key could be confused with.
import { createHash } from 'node:crypto'
import { compactVerify, type JWK } from 'jose'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { type Issuer, startIssuer } from '../../dev/issuer.ts'
import { ALGORITHMS, createKeys } from './keys.ts'

const EC: JWK = {
  kty: 'EC',
  crv: 'P-256',
  kid: 'kid-ec-sign',
  x: '04N0xi21hshyvBp7I167sbE_bXqyqkAPfefdklMO7wY',
  y: 'UI8exy-C06a7DUnjIdENkxeFtHM4-l_41LqEw9nVgmw',
}
const RSA: JWK = {
  kty: 'RSA',
  kid: 'kid-rsa-sign',
  e: 'AQAB',
  n: 'kqGboBfAWttWPCA-0cGRgsY6SaYoIARt0B_PkaEcIq9HPYNdu9n6UuWHuuTHrjF_ZoQW97r5HaAorNvrMEGTGdxCHZdEtkHvNVVmrtxTBLiQCbCozXhFoIrVcr3qUBrdGnNn_M3jJi7Wg7p_-x62nS5gNG875oyheRkutHsQXikFZwsN3q_TsPNOVlCiHy8mxzaFTUQGm-X8UYexFyAivlDSjgDJLAZSWfxd7k9Gxuwa3AUfQqQcVcegmgKGCaErQ3qQbh1x7WB6iopE3_-GZ8HMAVtR9AmrVscqYsnjhaCehfAI0iKKs8zXr8tISc0ORbaalrkk03H1ZrsEnDKEWQ',
}
/** The private half, with which the signatures with a wrong padding are made here. */
const D =
  'YsfIRYN6rDqSz5KRf1E9q7HK1o6-_UK-j7S-asb0Y1FdVs1GuiRQhMPoOjmhY3Io93EI3_7vj8uzWzAUMsAaTxOY3sJnIbktYuqTcD0xGD8VmdGPBkx963db8B6M2UYfqZARf7dbzP9EuB1N1miMcTsqyGgfHGOk7CXQ1vkIv8Uww38KMtEdJ3iB8r-f3qcu-UJjE7Egw9CxKOMjArOXxZEr4VnoIXrImrcTxBfjdY8GbzXGATiPQLur5GT99ZDW78falsir-b5Ean6HNyOeuaJuceT-yjgCXn57Rd3oIHD94CrjNtjBusoLdjbr489L8K9ksCh1gynzLGkeeWgVGQ'
/** The same numbers for two algorithms. */
const RSA_2: JWK = {
  kty: 'RSA',
  e: 'AQAB',
  n: 'orRRoH0KpfluRVZxUTVQUUqKW0YuvvcXCU-h_ugiJOY3-XRtP3yv0xh42AMltu9aFwD2WQO0aUKeidbqyIRQl7WrOTGJ25JRLtincRoSU_rNIPecFegkfz0-QuRuSMmOJUov6XZTE6A-_48X4aApOXofomqNzib0kO2BKZYV2YFMItphBCjgnH2WWFlCZvXAIdD87KCNlFoSvoLeTR7Oa0wDFFtdNJXU7VQR64eNrwX9evw-Ca2g8RJkIvWQl1oZaYFvSGmLy7obTZyuedRg2Pn4Xnl1AF2bwixOWsD3waRdElaaYoB9O5oC5aUw53MGb0U9H1tMLpz3ggKD90K51Q',
}
const RS256: JWK = { ...RSA_2, kid: 'RS256_2048', alg: 'RS256' }
const PS256: JWK = { ...RSA_2, kid: 'PS256_2048', alg: 'PS256', use: 'sig' }
/** Of RFC 8037, appendix A.4: Wycheproof has no signatures with EdDSA in this form. */
const ED25519: JWK = { kty: 'OKP', crv: 'Ed25519', x: '11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo' }

const ES_HEADER = 'eyJhbGciOiJFUzI1NiIsImtpZCI6ImtpZC1lYy1zaWduIn0'
const RS_HEADER = 'eyJhbGciOiJSUzI1NiIsImtpZCI6ImtpZC1yc2Etc2lnbiJ9'
const RS256_HEADER = 'eyJhbGciOiJSUzI1NiIsImtpZCI6IlJTMjU2XzIwNDgifQ'
const PS256_HEADER = 'eyJhbGciOiJQUzI1NiIsImtpZCI6IlBTMjU2XzIwNDgifQ'
/** Tests 18, 33 and 262, and that of the RFC: valid. */
const ES_VALID = `${ES_HEADER}.Zm9v.5cA0OHyMP7ezamUd5c9kV-FrGxdx4hbGXOdplQkutrqWrte5P-pAvsE3Ve6xSyU3YDQwUHjVVOtvcrEbbnZ8yA`
const RS_VALID = `${RS_HEADER}.Zm9v.HUwxI1-cZrZgcuOgBQ7G7NE-GrqK79l6GV1KT4DKXnSMFwC8pfZCzE7pmLE7mYpLCIvzC87yuOjuhT0uW5oe6aaAEtR978cm-q8dfly45flqMrd_ifhi9GCsMlyi8dpQ42Ou1etZljFZuWjfyk8CN1c5DaHRwhqjScAPIFp6xmzKIRUJ_xdQfUSfSlujLaixtScU518EoNP4oo1v7E8RAz6ZO4g2N4Xqs8OvSxYydcoTEg42QnLHe9JnXgI37Q5gSwinwaPsG3Ry56UYiLoL8mCUa74S51y02VsIgVmmGWgaXjM-i_lCiKQDBiBnvWlka4XhVuvd6ZWibM9cbCPtPg`
const RS256_VALID = `${RS256_HEADER}.VGVzdA.iYrSRSKuJ3UD3UnYswX6GSU9AjEEN0AB0ObJiiCY8A40tYGorEAycbg97V8_I8F_rouOdju2VMSisIzIUA4Grfc4xXcuc_AOrwrHAg-pOKU8v_I3b65RjJCAdodTs0OVYarKXcpwu9vFLsfCY23Pj-L621axMr5hwlIoDp_xJNdBAHFcym_4QU738h0bR8Gn9Ycb9SUggm7QILOvjrx7VxdUT3iV9DAO0R76mCaooX-Kdw1P5UUFGTcdzDRwU3Gl76EOCXqaTKRAFpOAmr9CNgmGHjiuZEgrwDdWRFoFS6fnOzHhCZdweqM1S75b_uJI2U1DQB_kNu1EnNE8Xzy6wA`
const ED_VALID =
  'eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc.hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg'

let issuer: Issuer
beforeAll(async () => {
  issuer = await startIssuer()
})
afterAll(() => issuer.close())

/** Verifies with the keys as the service takes them from its issuer; says what the token holds. */
async function verifier(...keys: JWK[]) {
  issuer.keys.splice(0, Number.POSITIVE_INFINITY, ...keys)
  const rules = { issuer: issuer.url, audience: '', jwksUrl: issuer.jwksUrl, types: [], scopes: undefined }
  const find = createKeys(
    rules,
    () => {},
    () => {},
  )
  return async (jws: string) =>
    Buffer.from((await compactVerify(jws, find, { algorithms: ALGORITHMS })).payload).toString()
}

/** What is wrong with any token that is changed like this. X is the letter that takes the place of another. */
function changesOf(jws: string): Record<string, string> {
  const [header = '', payload = '', signature = ''] = jws.split('.')
  const renamed = JSON.parse(Buffer.from(header, 'base64url').toString())
  const otherHeader = Buffer.from(JSON.stringify({ ...renamed, kid: `X${renamed.kid?.slice(1)}` })).toString(
    'base64url',
  )
  return {
    rejectsModifiedSignature: `${header}.${payload}.X${signature.slice(1)}`,
    rejectsMissingSignature: `${header}.${payload}.`,
    rejectsMissingSignatureAndSeparator: `${header}.${payload}`,
    rejectsModifiedPayload: `${header}.WG9v.${signature}`,
    rejectsMissingPayload: `${header}..${signature}`,
    rejectsMissingPayloadAndSeparator: `${header}.${signature}`,
    rejectsModifiedHeader: `${otherHeader}.${payload}.${signature}`,
    rejectsMissingHeader: `.${payload}.${signature}`,
    rejectsMissingHeaderAndSeparator: `${payload}.${signature}`,
    rejectsMissingHeaderAndSignature: `.${payload}.`,
    rejectsMissingHeaderSignatureAndSeparators: payload,
    rejectsEmptyString: '',
    rejectsExtraEmptyComponent: `${jws}.`,
    rejectsExtraComponent: `${jws}.foo`,
    rejectsNoneAlgorithmAndMissingSignature: `eyJhbGciOiJub25lIiwia2lkIjoia2lkLWFlcy1zaWduIn0.${payload}.`,
    rejectsValidJsonSerialization: JSON.stringify({ payload, signatures: [{ protected: header, signature }] }),
  }
}

describe.each([
  ['ES256', EC, ES_VALID, 'foo'],
  ['RS256', RSA, RS_VALID, 'foo'],
  ['RS256 of another key', RS256, RS256_VALID, 'Test'],
  ['EdDSA', ED25519, ED_VALID, 'Example of Ed25519 signing'],
])('%s', (_, key, valid, payload) => {
  test('acceptsValid', async () => {
    const verify = await verifier(key)
    expect(await verify(valid)).toBe(payload)
  })

  test.each(Object.entries(changesOf(valid)))('%s', async (_name, jws) => {
    const verify = await verifier(key)
    await expect(verify(jws)).rejects.toThrow()
  })
})

const base64url = (hex: string) => Buffer.from(hex, 'hex').toString('base64url')
const hexOf = (text: string) => Buffer.from(text, 'base64url').toString('hex')
const numberOf = (text: string) => BigInt(`0x${hexOf(text)}`)
const hex = (value: bigint, bytes: number) => value.toString(16).padStart(2 * bytes, '0')

describe('ES256 with special numbers', () => {
  const ORDER = 0xffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551n
  const whole = hexOf(ES_VALID.split('.')[2] ?? '')
  const [r, s] = [BigInt(`0x${whole.slice(0, 64)}`), BigInt(`0x${whole.slice(64)}`)]
  const jws = (...numbers: string[]) => `${ES_HEADER}.Zm9v.${base64url(numbers.join(''))}`

  test('378 valid', async () => {
    const verify = await verifier({ ...EC, alg: 'ES256' })
    expect(await verify(jws(hex(r, 32), hex(ORDER - s, 32)))).toBe('foo')
  })

  const edges = { zero: 0n, one: 1n, 'n - 1': ORDER - 1n, n: ORDER }
  const pairs = Object.entries(edges).flatMap(([ofR, first]) =>
    Object.entries(edges).map(([ofS, second]): [string, string] => [
      `r is ${ofR}, s is ${ofS}`,
      jws(hex(first, 32), hex(second, 32)),
    ]),
  )
  test.each<[string, string]>([
    ['379 SignatureTooLong', jws(hex(r, 33), hex(s, 33))],
    ['380 TrailingZeros', jws(hex(r, 32), '00', hex(s, 32), '00')],
    ['381 RisTooBig', jws(hex(r + ORDER, 33), hex(s, 33))],
    ['382 SisTooBig', jws(hex(r, 33), hex(s + ORDER, 33))],
    ['383 IntegerOverflow', jws('01', hex(r, 32), hex(s, 33))],
    ['384 IntegerOverflow', jws(hex(r, 33), '01', hex(s, 32))],
    ['385 BufferOverflow', jws(hex(r, 256), hex(s, 256))],
    ...pairs,
  ])('%s', async (_, forged) => {
    const verify = await verifier({ ...EC, alg: 'ES256' })
    await expect(verify(forged)).rejects.toThrow()
  })
})

describe('keys of another kind, or for something else', () => {
  test.each<[string, JWK, string]>([
    [
      '31 the key as a secret',
      EC,
      'eyJhbGciOiJIUzI1NiIsImtpZCI6ImtpZC1lYy1zaWduIn0.Zm9v.TgWtz2FIRukBQ_mA5sgHa0Ybtgn7bl-YBPAi7Z0XdHU',
    ],
    [
      '32 a key that the token brings',
      EC,
      'eyJhbGciOiJFUzI1NiIsImtpZCI6ImtpZC1lYy1zaWduIiwiandrIjp7Imt0eSI6IkVDIiwia2lkIjoia2lkLWVjLXNpZ24iLCJ1c2UiOiJzaWciLCJhbGciOiJFUzI1NiIsIngiOiJNZG5UWkRJaERKYmZBU2RGcWFtY3BPMkNoOUdOS0sybTBNUWxoNDAyU3BvIiwieSI6Ijdhdko0bHFfV3l4LW5MUERCUTJZcHl0dUh5TWlvMDdCVXl2bDNqYUMtMVkiLCJjcnYiOiJQLTI1NiJ9fQ.Zm9v.4jmsollQD8ZxvySzXYnIEYA4fwaZi2ZbC0aI1J4LYmW2Bn31NhKdjms2N6o51Dff5-InWXQF9m45VtTexl6yjg',
    ],
    ['341 none', PS256, 'eyJhbGciOiJub25lIn0.MTIzNDAw.'],
    ['342 NONE', PS256, 'eyJhbGciOiJOT05FIn0.MTIzNDAw.'],
    ['343 none, of a key that is not there', PS256, 'eyJhbGciOiJub25lIiwia2lkIjoibm9uZSJ9.MTIzNDAw.'],
    ['353 RSA, use', { ...RSA, use: 'enc' }, RS_VALID],
    ['354 EC, use', { ...EC, use: 'enc' }, ES_VALID],
    ['355 RSA, key_ops', { ...RSA, key_ops: ['encrypt'] }, RS_VALID],
    ['356 EC, key_ops', { ...EC, key_ops: ['encrypt'] }, ES_VALID],
    ['RS256 for a key of PS256', { ...RSA, alg: 'PS256' }, RS_VALID],
  ])('%s', async (_, key, jws) => {
    const verify = await verifier(key)
    await expect(verify(jws)).rejects.toThrow()
  })
})

describe('RS256 with another padding', () => {
  const [modulus, exponent] = [numberOf(RSA.n ?? ''), numberOf(D)]
  const HASH = createHash('sha256').update(`${RS_HEADER}.Zm9v`).digest('hex')
  const ID = '0609608648016503040201'
  const ALGORITHM = `300d${ID}0500`
  const DIGEST = `0420${HASH}`

  function power(base: bigint, by: bigint): bigint {
    if (by === 0n) return 1n
    const half = power((base * base) % modulus, by / 2n)
    return by % 2n === 1n ? (half * base) % modulus : half
  }

  /** Signs what stands in place of the digest and its algorithm (RFC 8017, section 9.2). */
  function sign(digestInfo: string): string {
    const padded = `0001${'f'.repeat(2 * 253 - digestInfo.length)}00${digestInfo}`
    return base64url(hex(power(BigInt(`0x${padded}`), exponent), 256))
  }

  test('33 acceptsValid: it is made here as it was there', () => {
    expect(`${RS_HEADER}.Zm9v.${sign(`3031${ALGORITHM}${DIGEST}`)}`).toBe(RS_VALID)
  })

  const bitFlipped = HASH.replace(/^../, (first) => hex(BigInt(Number.parseInt(first, 16) ^ 2), 1))
  // What is signed, and how Wycheproof's signature begins: it is the same.
  test.each([
    ['46 lengthOfSequenceUsesLongFormEncoding', `308131${ALGORITHM}${DIGEST}`, 'KudI1-Bo'],
    ['47 lengthOfSequenceContainsALeading0', `30820031${ALGORITHM}${DIGEST}`, 'X8GIjUht'],
    ['48 lengthOfSequenceUses50InsteadOf49', `3032${ALGORITHM}${DIGEST}`, 'Gp0CRlwc'],
    ['50 uint32OverflowInLengthOfSequence', `30850100000031${ALGORITHM}${DIGEST}`, 'Vf-IHTRV'],
    ['52 lengthOfSequenceIs2to31sub1', `30847fffffff${ALGORITHM}${DIGEST}`, 'S3SMyrK2'],
    ['56 lengthOfSequenceIs2to64sub1', `3088ffffffffffffffff${ALGORITHM}${DIGEST}`, 'CfR3xT4Y'],
    ['58 replacedSequenceByAnIndefiniteLengthTag', `3080${ALGORITHM}${DIGEST}`, 'FwCD09Gu'],
    ['59 removingSequence', '', 'F7S3oL6r'],
    ["61 appending0'sToSequence", `3033${ALGORITHM}${DIGEST}0000`, 'CFfhT4N8'],
    ["63 appendingUnused0'sToSequence", `3031${ALGORITHM}${DIGEST}0000`, 'NznBrBiN'],
    ['64 appendingNullValueToSequence', `3033${ALGORITHM}${DIGEST}0500`, 'DXI8YCdi'],
    ['73 ReplacingSequenceWithNULL', '0500', 'OZnyOtHc'],
    ['76 changingTagValueOfSequence', `3131${ALGORITHM}${DIGEST}`, 'F5h9vAP4'],
    ['83 indefiniteLength', `3080${ALGORITHM}${DIGEST}0000`, 'epddWSGy'],
    ['95 sequenceOfSequence', `30333031${ALGORITHM}${DIGEST}`, 'CmOAWcyi'],
    ['96 truncatedSequence', `300f${ALGORITHM}`, 'BOmsa-xl'],
    ['111 removingSequence', `3022${DIGEST}`, 'KiRBU1Q2'],
    ['161 removingOid', `302630020500${DIGEST}`, 'evFoR9st'],
    ['204 incorrectLengthOfNull', `3031300d${ID}05ff${DIGEST}`, 'Ebrxwm9a'],
    ["205 appending0'sToNull", `3033300f${ID}05020000${DIGEST}`, 'J1i-plGk'],
    ['216 changingTagValueOfNull', `3031300d${ID}0400${DIGEST}`, 'ZFkeBUWI'],
    ['224 lengthOfOctetStringUses33InsteadOf32', `3031${ALGORITHM}0421${HASH}`, 'UOBTSkRW'],
    ['253 droppingValueOfOctetString', `3011${ALGORITHM}0400`, 'EGbe3QFV'],
    ['255 modifyingFirstByteOfOctetString', `3031${ALGORITHM}0420${bitFlipped}`, 'BEWJf_MJ'],
    ['257 truncatedOctetString', `3030${ALGORITHM}041f${HASH.slice(0, -2)}`, 'hmDbjsL1'],
  ])('%s', async (_, digestInfo, beginning) => {
    const signature = sign(digestInfo)
    expect(signature.slice(0, 8)).toBe(beginning)
    const verify = await verifier(RSA)
    await expect(verify(`${RS_HEADER}.Zm9v.${signature}`)).rejects.toThrow()
  })
})

describe('PS256', () => {
  const PLAIN =
    'b6uWakSZEbnIww4x2Yac7Aw8Hq2OWxOJofQqxztMopZXxMaGrpwd6uRlSBnVwEGXAAOkSrFlm8pqtod5VBs6Ot8hGt4ZWfJAKmuJPeqdi6PlqoaCfX2Zk-x0dNYvNE1WFk_vvPeJoLQLx3ws9agFMKV4RilxObN459bkFjHN5Sn6Qu-NkoOQ-CnitEE3Cpgufqa8Q6c1KgXtrTYG9KKQyXHTaMJki3PrFhrgFRT7x2jG79uSkEyh9aYwb6acLlrYF4cGQ9Yg3vNaOru5-RiFdjqR1UaMo6mQhSl_9ObR2rukRMV0YEuxd73xXgFH5u57oQ1JR_v7SsZosxKf-arGzg'
  const [modulus, plain] = [numberOf(RSA_2.n ?? ''), numberOf(PLAIN)]

  test.each([
    [
      '274 oneBytePayload',
      'YQ',
      'a',
      'ZgVavy_Pn25fIkdd8Nixh6YFJtTYk_THG0IKM7xUwLqiME80Z-f9pgdSf6-MKDV58Keo_oLYii9gXgSCcx-IUA1ezDFdaU3e90n1h9v5HCCwz3t_LnVRCCa4PkXArQTOCDD7gmDFhfzXOXWJOUPCCAj6lTdMn9UvPhCh3OB_ExMbW72-toklAYiDknpQTG_1-k7R3x91N5ToD6bGRonBB6Y3z-kZCgyQ3ORHBiWI1VYHxqKscorI-uI-wouKa-crqkvOoCTuAjvpu7Z8ZAgMPlLW5KRc8KC8VKcUW--7VJCUezGxLQSj011ith3wIuW1eE64xW9yq7kyB4XAiFiA7A',
    ],
    [
      '287 saltIsAll0',
      'MTIzNDAw',
      '123400',
      'dUcf9WkbpF69lhxu33p6pwelP-Cczi4sGO9r5sUgozEMT-_WJY5F5MFDMgwoUVf-se16NdYugg4pZP6YTtc-GQOWe_owLcOitHV-c2EpU1D7p2TaQA9Wj6yRy9m0Tvcd8wx2I2b--9LE09_1mfaoE-WVcfdeHIEfkXGMFgeSh_jC2mRNbveIiN5RGEsEjTZ4PLrQHV6A6b_FA9-KX1cC-cOyRezpCAVrvlUjLMKfzVcwNy0CB2LZmVIXUKX-UjY3Lq3zpibRaCh5sbFZbltSjwBdwnp_BKgzj_QPbOtqKxakJjBu7PCihlOkZID2e0nJfjUwcFQ3uc_k0OVdYE1Adg',
    ],
  ])('%s is valid', async (_, encoded, payload, signature) => {
    const verify = await verifier(PS256)
    expect(await verify(`${PS256_HEADER}.${encoded}.${signature}`)).toBe(payload)
    // Nor does the same key take it for RS256, if its set says so.
    const other = await verifier({ ...PS256, alg: 'RS256' })
    await expect(other(`${PS256_HEADER}.${encoded}.${signature}`)).rejects.toThrow()
  })

  test.each([
    [
      '276 MhashModified',
      'eYXIYOIgDt-DGHF8NiIrLu-Mw5NS2AqRAKBMQcacAtda0k4atGhtiSPpx7t6Q1q0H6FUDuZSkyisYdUWfTfgKa9rbSZA7s-atu2BQs8jIYJkZm5r4cjG-PC9IxlG0MgjuDB7cgfUFN9EULK3WEMxFDvpRflNNtqXv6KljFqhCRm9QqQV6kwulPn3N5rp2WAdkBd1LkRPyvL8FxxZAKNe-0wV2cnnqnoddtdYJfDWk1v-YQYd7XRezh8VpUkf-XMxJFzILrMSNz55IMvy0peD9Aal5NrXjQDr26ZpHA00UGYshS7tmd5h4H13IxbVmVSlrqAyX1EDn0XxxW3KgTlH3Q',
    ],
    [
      '281 SaltLenChanged',
      'WBT0rwGn8qkOaoRZX32NCBC5pUzevzuX8qSTF2Eqvst7zKwxO1gN_HGbS13EbOk5ZU841G-ihVvE5ksWcVmVsTGZYELVw1j0XAIHlotUukQROn2ycW5AvFBBO5VYSlhYp0SJoepDJSQqx8F7UZKGaOACmUml7BCLAN9koWO1ck7LtYHepTO1i_nLlNt27zIIs7blHcPmfCHD_5IPBH1dFErBbeVSAD9gJqZf4nn59tZHpZ_rpXMHV2-jV0daijCynBOsdWLftF5ieY6cLW41dd2jmHE9upLxP8KYy-aX7juQ3cfE8Y5hcdqCmKXBHfoeRhDS4i02zvAUnoyLXUaDOg',
    ],
    ['312 SignatureIs0', base64url(hex(0n, 256))],
    ['313 SignatureIs1', base64url(hex(1n, 256))],
    ['314 SignatureIsNsub1', base64url(hex(modulus - 1n, 256))],
    ['315 SignatureIsn', base64url(hex(modulus, 256))],
    ['317 prependingZerosToSignature', base64url(hex(plain, 258))],
    ['318 appendingZerosToSignature', base64url(`${hex(plain, 256)}0000`)],
    ['319 truncatedSignature', base64url(hex(plain, 256).slice(0, -4))],
  ])('%s is not', async (_, signature) => {
    const verify = await verifier(PS256)
    await expect(verify(`${PS256_HEADER}.MTIzNDAw.${signature}`)).rejects.toThrow()
  })
})
