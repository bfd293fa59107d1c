"""Words that say what music is like, by the field of `Tags` they belong to, and the labels that people put before them.

Data only. Words are separated by commas, in lower case; a hyphen may also be written as a space, and a plural s may
follow. What has a foreign name is read in Chinese, Japanese, German, French and Spanish too.
"""

# ruff: noqa: E501 - a Chinese character counts as two

from __future__ import annotations

FIELDS = {
    "genres": """
        ambient, cinematic, orchestral, classical, neoclassical, baroque, romantic era, symphonic, chamber music, opera,
        film score, soundtrack, trailer music, epic, minimalist, minimalism, new age, drone, soundscape, experimental,
        avant-garde, electronic, electronica, electro, edm, techno, house, deep house, tropical house, trance, dubstep,
        drum and bass, drum & bass, drum n bass, dnb, jungle, breakbeat, garage, idm, glitch, downtempo, chillout,
        chill-out, chillwave, chillhop, trip-hop, lo-fi, lofi, lo-fi hip-hop, lofi hip-hop, hip-hop, rap, trap, drill,
        grime, boom bap, r&b, rnb, soul, neo-soul, funk, disco, gospel, blues, jazz, smooth jazz, swing, bebop, big band,
        bossa nova, samba, salsa, latin, tango, flamenco, reggae, reggaeton, dub, dancehall, ska, afrobeat, pop,
        indie pop, synth-pop, synthpop, electropop, dream pop, k-pop, j-pop, city pop, dance, eurodance, rock, soft rock,
        hard rock, indie rock, indie, alternative, alternative rock, post-rock, progressive rock, psychedelic,
        psychedelic rock, punk, grunge, shoegaze, metal, heavy metal, industrial, folk, indie folk, acoustic folk,
        country, americana, bluegrass, celtic, singer-songwriter, world music, ethnic, middle eastern, oriental,
        synthwave, retrowave, vaporwave, new wave, chiptune, 8-bit, lounge, easy listening, corporate, waltz, march,
        lullaby, children's music, holiday, christmas, meditation music, marching band, musical theatre, horror score
    """,
    "instruments": """
        piano, grand piano, upright piano, felt piano, electric piano, rhodes, wurlitzer, keyboard, organ, church organ,
        hammond organ, harpsichord, celesta, clavinet, accordion, harmonium, harmonica, melodica, guitar,
        acoustic guitar, electric guitar, classical guitar, nylon guitar, steel guitar, slide guitar, distorted guitar,
        distortion guitar, muted guitar, bass, bass guitar, electric bass, upright bass, double bass, acoustic bass,
        synth bass, sub bass, 808, banjo, mandolin, ukulele, dobro, lute, oud, sitar, koto, shamisen, erhu, guzheng, pipa,
        bouzouki, balalaika, string, strings, string ensemble, string section, string quartet, orchestra, violin, fiddle,
        viola, cello, harp, lyre, dulcimer, zither, brass, brass section, trumpet, muted trumpet, trombone, tuba, horn,
        french horn, flugelhorn, woodwind, woodwinds, flute, piccolo, pan flute, recorder, tin whistle, oboe, clarinet,
        bass clarinet, bassoon, cor anglais, saxophone, sax, alto saxophone, tenor saxophone, shakuhachi, duduk, ney,
        didgeridoo, bagpipe, synth, synthesizer, synthesiser, analog synth, modular synth, synth lead, synth pad, pad,
        warm pad, arpeggiator, sampler, turntable, drum, drums, drum kit, drum machine, brushed drums, kick, kick drum,
        snare, hi-hat, cymbal, percussion, hand percussion, taiko, timpani, tom, bongo, conga, djembe, tabla, cajon,
        tambourine, shaker, maracas, claps, hand claps, finger snaps, triangle, bell, bells, chimes, tubular bells,
        gong, singing bowl, glockenspiel, xylophone, vibraphone, marimba, kalimba, music box, steel drum, hang drum,
        handpan, mallet, choir, theremin, whistle
    """,
    "moods": """
        calm, peaceful, serene, tranquil, relaxed, relaxing, soothing, gentle, tender, dreamy, ethereal, meditative,
        contemplative, reflective, introspective, thoughtful, pensive, nostalgic, wistful, bittersweet, melancholic,
        melancholy, sad, somber, sombre, sorrowful, lonely, longing, romantic, intimate, sentimental, emotional, moving,
        touching, heartfelt, hopeful, optimistic, inspiring, inspirational, uplifting, motivational, triumphant, heroic,
        majestic, noble, powerful, happy, joyful, joyous, cheerful, playful, whimsical, quirky, funny, humorous,
        lighthearted, light-hearted, carefree, fun, festive, celebratory, exciting, excited, energetic, upbeat, lively,
        vibrant, dynamic, driving, adventurous, confident, cool, laid-back, chill, mellow, groovy, sexy, sensual,
        mysterious, mystical, magical, enchanting, suspenseful, tense, anxious, uneasy, ominous, eerie, creepy, scary,
        dark, brooding, menacing, dramatic, intense, aggressive, angry, urgent, chaotic, frantic, hypnotic, futuristic,
        determined, solemn, sacred, spiritual, curious, innocent, wondrous, awe-inspiring, restless, pastoral, quiet
    """,
    "timbres": """
        warm, bright, soft, airy, spacious, lush, rich, full, deep, thick, thin, crisp, clean, clear, crystalline,
        sparkling, shimmering, shiny, glassy, metallic, woody, wooden, breathy, smoky, smooth, silky, mellow tone, round,
        velvety, hazy, dusty, gritty, raw, rough, harsh, distorted, fuzzy, crunchy, saturated, punchy, tight, heavy,
        dense, sparse, minimal, layered, textured, atmospheric, reverberant, reverberated, echoing, resonant, wide,
        intimate tone, muted, muffled, plucked, bowed, sustained, percussive, staccato, legato, acoustic, organic,
        natural, synthetic, digital, analog, analogue, vintage, retro, grainy, lo-fi texture, vinyl crackle, glossy,
        polished, buzzing, humming, delicate, light, hollow, sharp, booming, thunderous, sweeping, swelling, pulsing
    """,
}

# other names, which become the first one
FOREIGN = {
    "piano": "钢琴, 鋼琴, ピアノ, klavier",
    "guitar": "吉他, ギター, gitarre, guitare, guitarra",
    "acoustic guitar": "木吉他, 原声吉他, アコースティックギター, akustikgitarre, guitare acoustique, guitarra acústica",
    "electric guitar": "电吉他, 電吉他, エレキギター, e-gitarre, guitare électrique, guitarra eléctrica",
    "violin": "小提琴, バイオリン, ヴァイオリン, geige, violine, violon, violín",
    "cello": "大提琴, チェロ, violoncelle, violonchelo",
    "strings": "弦乐, 弦樂, ストリングス, 弦楽器, streicher, cordes, cuerdas",
    "drums": "鼓, 架子鼓, ドラム, schlagzeug, batterie, batería",
    "percussion": "打击乐, 打擊樂, パーカッション, 打楽器, perkussion, percussions, percusión",
    "bass": "贝斯, 貝斯, ベース, basse, bajo",
    "flute": "长笛, 長笛, フルート, flöte, flûte, flauta",
    "trumpet": "小号, 小號, トランペット, trompete, trompette, trompeta",
    "saxophone": "萨克斯, 薩克斯, サックス, saxophon, saxofón",
    "harp": "竖琴, 豎琴, ハープ, harfe, harpe, arpa",
    "synthesizer": "合成器, シンセサイザー, シンセ, synthétiseur, sintetizador",
    "brass": "铜管, 銅管, 金管楽器, blechbläser, cuivres, metales",
    "orchestra": "管弦乐团, オーケストラ, orchester, orchestre, orquesta",
    "erhu": "二胡",
    "guzheng": "古筝, 古箏",
    "ambient": "氛围音乐, 環境音樂, アンビエント, ambiant, ambiental",
    "cinematic": "电影感, 電影感, 电影配乐, シネマティック, filmisch, filmmusik, cinématographique, cinematográfico, cinematográfica",
    "electronic": "电子, 電子, 电子音乐, エレクトロニック, elektronisch, électronique, electrónica",
    "classical": "古典, 古典音乐, クラシック, klassik, klassisch, classique, clásica",
    "jazz": "爵士, 爵士乐, ジャズ",
    "rock": "摇滚, 搖滾, ロック",
    "pop": "流行, 流行音乐, ポップ",
    "folk": "民谣, 民謠, フォーク, volksmusik, folklore",
    "hip-hop": "嘻哈, ヒップホップ",
    "calm": "平静, 平靜, 宁静, 寧靜, 安静, 穏やか, 静か, ruhig, gelassen, calme, tranquille, tranquilo, tranquila",
    "happy": "欢快, 歡快, 快乐, 快樂, 楽しい, 明るい, fröhlich, heureux, joyeux, joyeuse, alegre, feliz",
    "sad": "悲伤, 悲傷, 忧伤, 悲しい, traurig, triste",
    "melancholic": "忧郁, 憂鬱, 切ない, melancholisch, mélancolique, melancólico, melancólica",
    "hopeful": "充满希望, 希望, 希望に満ちた, hoffnungsvoll, esperanzador",
    "energetic": "充满活力, 活力, 激昂, エネルギッシュ, energisch, energiegeladen, énergique, enérgico, enérgica",
    "mysterious": "神秘, 神秘的な, mysteriös, geheimnisvoll, mystérieux, misterioso, misteriosa",
    "tense": "紧张, 緊張, 緊張感, angespannt, tendu, tenso, tensa",
    "romantic": "浪漫, ロマンチック, romantisch, romantique, romántico, romántica",
    "dreamy": "梦幻, 夢幻, 幻想的, verträumt, rêveur, soñador",
    "warm": "温暖, 溫暖, 暖かい, 温かい, chaleureux, chaud, cálido, cálida",
    "bright": "明亮, 明るい音色, hell, brillant, lumineux, brillante",
    "soft": "柔和, 轻柔, 柔らかい, weich, sanft, doux, suave",
    "airy": "空灵, luftig, aérien, aéreo",
}

# what stands before a colon, by the field of `Tags` that follows it; "tags" is any of them, "" is none
LABELS = {
    "caption": """
        caption, description, summary, scene, visual, visuals, video, content, objective caption, 描述, 画面, 视频描述,
        字幕, 说明, 内容, 説明, 概要, キャプション, 映像, beschreibung, bildunterschrift, zusammenfassung, szene,
        légende, résumé, scène, descripción, leyenda, resumen, escena
    """,
    "genres": """
        genre, genres, style, styles, subgenre, music type, type of music, 流派, 风格, 風格, 曲风, 曲風, 类型, 類型,
        音乐风格, 音乐类型, ジャンル, スタイル, 音楽ジャンル, stil, musikstil, musikrichtung, style musical, género,
        géneros, estilo, estilos
    """,
    "instruments": """
        instrument, instruments, instrumentation, orchestration, lead instrument, 乐器, 樂器, 配器, 主要乐器, 楽器,
        楽器編成, 使用楽器, instrumente, instrumentierung, besetzung, instrumentos, instrumento, instrumentación
    """,
    "moods": """
        mood, moods, emotion, emotions, feeling, feelings, feel, atmosphere, vibe, ambience, 情绪, 情緒, 心情, 情感,
        氛围, 氛圍, 气氛, ムード, 雰囲気, 気分, 感情, stimmung, gefühl, atmosphäre, ambiance, humeur, atmosphère,
        émotion, ánimo, estado de ánimo, ambiente, atmósfera, emoción, humor
    """,
    "timbres": """
        timbre, timbres, sound, tone, texture, textures, tone color, tone colour, sound quality, 音色, 质感, 音質,
        音の質感, テクスチャ, klangfarbe, klangfarben, klang, sonorité, sonorités, texture sonore, sonoridad, textura
    """,
    "tempo": """
        tempo, bpm, speed, pace, tempi, beats per minute, 速度, 节奏, 節奏, 拍速, テンポ, 速さ, geschwindigkeit,
        vitesse, velocidad
    """,
    "key": "key, key signature, tonality, 调性, 調性, 调, 調, キー, tonart, tonalité, tonalidad",
    "negative": "avoid, negative, negative tags, negative prompt, exclude, 避免, vermeiden, éviter, evitar",
    "tags": "tag, tags, keyword, keywords, music tags, 标签, 標籤, 关键词, タグ, キーワード, schlagwörter, mots-clés, etiquetas",
    "": """
        vocals, vocal, voice, lyrics, rhythm, dynamics, energy, note, notes, title, duration, reason, reasoning,
        explanation, 人声, 歌词, ボーカル, gesang, voix, voces
    """,
}

TEMPI = {
    "grave": 40, "largo": 50, "lento": 52, "larghetto": 63, "adagio": 70, "adagietto": 74, "andante": 90,
    "andantino": 96, "moderato": 112, "allegretto": 116, "allegro": 132, "vivace": 160, "presto": 180,
    "prestissimo": 200, "very slow": 55, "slow": 70, "slow to moderate": 85, "slow to medium": 85, "medium": 105,
    "moderate": 105, "mid": 105, "steady": 105, "moderate to fast": 125, "medium to fast": 125, "upbeat": 125,
    "up": 125, "fast": 140, "very fast": 165, "slow paced": 70, "fast paced": 140, "langsam": 70, "mittel": 105,
    "mäßig": 105, "schnell": 140, "lent": 70, "modéré": 105, "rapide": 140, "moderado": 105, "rápido": 140,
    "慢": 70, "缓慢": 70, "中等": 105, "中速": 105, "快": 140, "快速": 140, "遅い": 70, "ゆっくり": 70, "普通": 105,
    "ミディアム": 105, "速い": 140,
}  # fmt: skip

NOT = (
    *("no", "not", "without", "avoid", "avoiding", "never", "lacks", "lacking", "free of", "instead of", "rather than"),
    *("none", "n/a", "excluding", "except", "ohne", "kein", "keine", "keinen", "sans", "pas de", "aucun", "aucune"),
    *("sin", "ningún", "ninguna", "无", "無", "没有", "沒有", "不要", "なし", "ではない"),
)
VOICES = (
    *(
        "vocal",
        "vocals",
        "voice",
        "voices",
        "singer",
        "singing",
        "lyrics",
        "rapping",
        "人声",
        "人聲",
        "歌声",
        "ボーカル",
    ),
    *("gesang", "stimme", "chant", "voix", "voz", "voces"),
)
MUSIC = (
    *("music", "musical", "soundtrack", "score", "track", "song", "piece", "melody", "tempo", "bpm", "genre", "style"),
    *("instrument", "instruments", "instrumentation", "instrumental", "mood", "accompany", "accompaniment", "timbre"),
    *(
        "background music",
        "音乐",
        "音樂",
        "配乐",
        "音楽",
        "曲",
        "musik",
        "stück",
        "musique",
        "morceau",
        "música",
        "pieza",
    ),
)
